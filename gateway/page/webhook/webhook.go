// Package webhook sends pages as JSON over HTTP POST to any program that
// listens: an on-call service, a chat bridge, a script.
//
// The body is a page.Message. Idempotency-Key is the same for every repeat of
// one message. With a secret, Luquan-Signature is
//
//	t=<unix seconds>,v1=<hex HMAC-SHA256(secret, "<unix seconds>.<body>")>
//
// Any 2xx answer is success. 408, 425, 429, 5xx and every failure of the
// connection are tried again; other answers, redirects among them, are final.
package webhook

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unicode"

	"luquan/gateway/page"
)

// Config is what page.yaml says under `webhook`.
type Config struct {
	URL     string            `yaml:"url"`     // http or https
	Timeout time.Duration     `yaml:"timeout"` // of one attempt; default 10s, at most 30s
	Headers map[string]string `yaml:"headers"` // sent with each message, such as Authorization
	// Secret signs the body; SecretFile holds it instead, relative to page.yaml.
	Secret     string `yaml:"secret"`
	SecretFile string `yaml:"secret_file"`
}

// Webhook is a channel. It is safe for concurrent use.
type Webhook struct {
	name    string
	config  Config
	host    string // for errors: the whole URL may hold a key
	secret  []byte
	client  *http.Client
	signNow func() time.Time
}

var _ page.Channel = (*Webhook)(nil)

const (
	defaultTimeout = 10 * time.Second
	maxTimeout     = 30 * time.Second
	maxAnswer      = 64 << 10 // read of an answer, so that the connection ends well
	shownAnswer    = 200      // of it in the journal
)

// New checks c and returns the channel called name; dir is the folder that a
// relative secret_file starts from. Nothing is sent.
func New(name, dir string, c Config) (*Webhook, error) {
	u, err := url.Parse(c.URL)
	switch {
	case c.URL == "":
		return nil, errors.New("webhook has no url; write the address to POST to")
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("webhook url is no http or https address")
	case c.Secret != "" && c.SecretFile != "":
		return nil, errors.New("webhook has both secret and secret_file; keep one")
	}
	if c.Timeout == 0 {
		c.Timeout = defaultTimeout
	}
	if c.Timeout < 100*time.Millisecond || c.Timeout > maxTimeout {
		return nil, fmt.Errorf("webhook timeout %s is not within 100ms and %s", c.Timeout, maxTimeout)
	}
	for k, v := range c.Headers {
		if !validHeader(k, v) {
			return nil, fmt.Errorf("webhook header %q is not one that HTTP can carry, or is set by us", k)
		}
	}
	w := &Webhook{name: name, config: c, host: u.Host, secret: []byte(c.Secret), signNow: time.Now}
	if c.SecretFile != "" {
		file := c.SecretFile
		if !filepath.IsAbs(file) {
			file = filepath.Join(dir, file)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("webhook secret_file: %w", err)
		}
		if w.secret = bytes.TrimSpace(b); len(w.secret) == 0 {
			return nil, fmt.Errorf("webhook secret_file %s is empty", file)
		}
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.DisableKeepAlives = true // pages are rare; a connection kept for days is one that is dead when needed
	w.client = &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return w, nil
}

// ours are the headers Notify sets.
var ours = []string{"Content-Type", "Content-Length", "Host", "User-Agent", "Idempotency-Key", "Luquan-Signature"}

func validHeader(k, v string) bool {
	for _, o := range ours {
		if strings.EqualFold(k, o) {
			return false
		}
	}
	token := k != "" && !strings.ContainsFunc(k, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
	})
	return token && !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f })
}

// Name returns the channel's name in page.yaml.
func (w *Webhook) Name() string { return w.name }

// Notify posts m once.
func (w *Webhook) Notify(ctx context.Context, m page.Message) (retry bool, err error) {
	body, err := json.Marshal(m)
	if err != nil {
		return false, fmt.Errorf("encode message: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, w.config.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.config.URL, bytes.NewReader(body))
	if err != nil {
		return false, fmt.Errorf("post to %s: %w", w.host, bare(err))
	}
	for k, v := range w.config.Headers {
		req.Header.Set(k, v)
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "luquan")
	req.Header.Set("Idempotency-Key", m.Key())
	if len(w.secret) > 0 {
		req.Header.Set("Luquan-Signature", sign(w.secret, w.signNow(), body))
	}
	resp, err := w.client.Do(req)
	if err != nil {
		return true, fmt.Errorf("post to %s: %w", w.host, bare(err))
	}
	defer resp.Body.Close()
	answer, _ := io.ReadAll(io.LimitReader(resp.Body, maxAnswer)) // the status is the answer; the text only explains it
	code := resp.StatusCode
	switch {
	case code >= 200 && code < 300:
		return false, nil
	case code >= 300 && code < 400:
		return false, fmt.Errorf("post to %s: answered %s, a redirect; write the final address as url", w.host, resp.Status)
	}
	retry = code >= 500 || code == http.StatusRequestTimeout || code == http.StatusTooEarly || code == http.StatusTooManyRequests
	return retry, fmt.Errorf("post to %s: answered %s%s", w.host, resp.Status, excerpt(answer))
}

// sign returns the value of Luquan-Signature.
func sign(secret []byte, now time.Time, body []byte) string {
	t := strconv.FormatInt(now.Unix(), 10)
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(t + "."))
	mac.Write(body)
	return "t=" + t + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}

// bare takes the URL, which may hold a key, out of an error of net/http.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// excerpt is the beginning of an answer in one printable line.
func excerpt(b []byte) string {
	s := strings.Join(strings.Fields(strings.ToValidUTF8(string(b), "?")), " ")
	s = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s)
	if r := []rune(s); len(r) > shownAnswer {
		s = string(r[:shownAnswer]) + "..."
	}
	if s == "" {
		return ""
	}
	return ": " + s
}
