package console

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

// asset is one file of the front end, kept in memory in both forms.
type asset struct {
	kind, tag     string
	plain, packed []byte
}

// views are the paths that show the front end's one page; it reads the path
// itself. Each stands in gateway/webui/src/main.ts too.
var views = []string{"/{$}", "/site/{site}", "/point/{site}/{device}/{point}", "/alarms", "/journal", "/ledger", "/gateways", "/health"}

func (s *server) pages(mux *http.ServeMux) {
	for _, name := range []string{"index.html"} {
		if _, err := fs.Stat(s.opt.Assets, name); err != nil {
			panic("BUG: console: the front end has no " + name + ": run go generate ./gateway/webui")
		}
	}
	err := fs.WalkDir(s.opt.Assets, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		a, err := load(s.opt.Assets, name)
		if err != nil {
			return err
		}
		if name == "index.html" {
			mux.Handle("/", s.api(a.elsewhere))
			for _, v := range views {
				mux.Handle("GET "+v, a)
			}
			return nil
		}
		mux.Handle("GET /"+name, a)
		return nil
	})
	if err != nil {
		panic(fmt.Sprintf("BUG: console: read the embedded front end: %v", err))
	}
}

func load(fsys fs.FS, name string) (*asset, error) {
	data, err := fs.ReadFile(fsys, name)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	a := &asset{kind: mime.TypeByExtension(path.Ext(name)), tag: `"` + hex.EncodeToString(sum[:12]) + `"`, plain: data}
	switch path.Ext(name) { // the machine's table may say otherwise
	case ".js":
		a.kind = "text/javascript; charset=utf-8"
	case ".css":
		a.kind = "text/css; charset=utf-8"
	case ".html":
		a.kind = "text/html; charset=utf-8"
	case ".svg":
		a.kind = "image/svg+xml"
	}
	var z bytes.Buffer
	zw, _ := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if _, err := zw.Write(data); err != nil {
		return nil, err
	}
	if err := zw.Close(); err != nil {
		return nil, err
	}
	if z.Len() < len(data)*9/10 {
		a.packed = z.Bytes()
	}
	return a, nil
}

// elsewhere answers for a path that nothing is at: a person gets the page,
// which says so and leads back, and a program the error.
func (a *asset) elsewhere(w http.ResponseWriter, r *http.Request) error {
	switch {
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		return methodNotAllowed("GET")(w, r)
	case !strings.Contains(r.Header.Get("Accept"), "text/html"):
		return refuse(http.StatusNotFound, "there is no "+r.URL.Path, "docs/contract.md lists what there is")
	}
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", a.kind)
	a.write(w, r, http.StatusNotFound, a.plain)
	return nil
}

// ServeHTTP serves the file with its tag; a browser asks each time and mostly
// hears that nothing changed.
func (a *asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	body, tag := a.plain, a.tag
	if a.packed != nil && acceptsGzip(r.Header.Get("Accept-Encoding")) {
		body, tag = a.packed, strings.TrimSuffix(a.tag, `"`)+`-gz"`
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("ETag", tag)
	h.Set("Content-Type", a.kind)
	for _, t := range strings.Split(r.Header.Get("If-None-Match"), ",") {
		if t = strings.TrimPrefix(strings.TrimSpace(t), "W/"); t == tag {
			h.Del("Content-Encoding")
			h.Del("Content-Type")
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	a.write(w, r, http.StatusOK, body)
}

func (a *asset) write(w http.ResponseWriter, r *http.Request, status int, body []byte) {
	w.Header().Set("Content-Length", fmt.Sprint(len(body)))
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // the client is gone: nothing to do
	}
}

// acceptsGzip reports whether gzip is among the codings and not refused.
func acceptsGzip(header string) bool {
	for _, c := range strings.Split(header, ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(c), ";")
		if name == "gzip" && strings.ReplaceAll(q, " ", "") != "q=0" {
			return true
		}
	}
	return false
}
