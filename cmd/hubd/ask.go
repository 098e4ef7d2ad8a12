package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
)

// errNoHub says that nothing listens where the configuration puts the console.
var errNoHub = errors.New("no hub runs here")

// ask calls the API of the hub that runs by the same configuration and decodes
// its answer into out. It returns errNoHub when none does.
func ask(ctx context.Context, listen, method, path string, query url.Values, body []byte, out any) error {
	if _, port, err := net.SplitHostPort(listen); err != nil || port == "0" {
		return errNoHub // a free port: where it is only the hub itself knows
	}
	u := url.URL{Scheme: "http", Host: listen, Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	resp, err := http.DefaultClient.Do(req)
	if errors.Is(err, syscall.ECONNREFUSED) {
		return errNoHub
	}
	if err != nil {
		return fmt.Errorf("ask the hub at %s: %w", listen, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("ask the hub at %s: %w", listen, err)
	}
	if resp.StatusCode != http.StatusOK {
		var no struct{ Error, Hint string }
		if json.Unmarshal(data, &no) != nil || no.Error == "" {
			return fmt.Errorf("what listens on %s answers %s and is no hub; see console.listen", listen, resp.Status)
		}
		return &refused{resp.StatusCode, fmt.Errorf("%s; %s", no.Error, no.Hint)}
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("what listens on %s does not answer as a hub does; see console.listen: %w", listen, err)
	}
	return nil
}

// refused is what the hub itself said no with.
type refused struct {
	status int
	error
}
