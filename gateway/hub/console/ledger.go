package console

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"luquan/gateway/hub/ledger"
	"luquan/gateway/telemetry"
)

const (
	// maxVerify is the longest span that is compared with the history at once.
	maxVerify = 31 * 24 * time.Hour
	// maxImport is the longest payload, gateway/wire's own limit.
	maxImport = 1 << 20
)

func (s *server) ledger(w http.ResponseWriter, r *http.Request) error {
	p, err := params(r, "site", "gateway", "from", "to", "by", "verify")
	if err != nil {
		return err
	}
	if s.opt.Ledger == nil {
		return absent("ledger")
	}
	for _, name := range []string{"site", "gateway"} {
		if v := p[name]; v != "" && !telemetry.ValidName(v) {
			return refuse(http.StatusBadRequest, fmt.Sprintf("%s=%q is not a name", name, v), "see /api/v1/gateways")
		}
	}
	q := LedgerQuery{Site: p["site"], Gateway: p["gateway"]}
	if err := q.by(p); err != nil {
		return err
	}
	switch p["verify"] {
	case "", "0", "false":
	case "1", "true":
		q.Verify = true
	default:
		return refuse(http.StatusBadRequest, fmt.Sprintf("verify=%q is neither 0 nor 1", p["verify"]), "verify=1 compares with the history")
	}
	_, from := p["from"]
	_, to := p["to"]
	if from || to || q.ByHour || q.Verify {
		if q.From, q.To, err = period(p, 24*time.Hour); err != nil {
			return err
		}
	}
	if q.Verify && q.To.Sub(q.From) > maxVerify {
		return refuse(http.StatusBadRequest, "the span is too long to be compared with the history at once", "ask for 31 days or less")
	}
	ctx, cancel := context.WithTimeout(r.Context(), 5*time.Minute)
	defer cancel()
	list, err := s.opt.Ledger(ctx, q)
	switch {
	case errors.Is(err, ledger.ErrTooLong):
		return refuse(http.StatusBadRequest, ledger.ErrTooLong.Error(), "by=gateway gives one row a board, by=site one a site")
	case err != nil:
		return fmt.Errorf("read ledger: %w", err)
	}
	if list == nil {
		list = []ledger.Row{}
	}
	writeJSON(w, http.StatusOK, list)
	return nil
}

// by reads what a row is of. Without it a row is of one epoch of one board.
func (q *LedgerQuery) by(p map[string]string) error {
	v, ok := p["by"]
	if !ok {
		q.ByGateway, q.ByEpoch = true, true
		return nil
	}
	for _, k := range strings.Split(v, ",") {
		switch k {
		case "site": // a row always is of one site
		case "gateway":
			q.ByGateway = true
		case "epoch":
			q.ByGateway, q.ByEpoch = true, true
		case "hour":
			q.ByHour = true
		default:
			return refuse(http.StatusBadRequest, fmt.Sprintf("by=%q is not made of site, gateway, epoch, hour", v), "for example by=gateway,hour")
		}
	}
	return nil
}

// importPayload takes what `hubd import` reads of a dead board's card.
func (s *server) importPayload(w http.ResponseWriter, r *http.Request) error {
	p, err := params(r, "topic")
	if err != nil {
		return err
	}
	if s.opt.Import == nil {
		return absent("history that can be imported to")
	}
	if t := r.Header.Get("Content-Type"); t != "application/octet-stream" {
		return refuse(http.StatusUnsupportedMediaType, fmt.Sprintf("Content-Type %q is not application/octet-stream", t), "this is for hubd import")
	}
	payload, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxImport))
	if err != nil {
		return refuse(http.StatusRequestEntityTooLarge, "the payload cannot be read: "+err.Error(), "at most 1 MiB")
	}
	answer, err := s.opt.Import(r.Context(), p["topic"], payload)
	var no interface{ Refused() }
	if errors.As(err, &no) {
		return refuse(http.StatusBadRequest, err.Error(), "this is for hubd import")
	}
	if err != nil {
		return refuse(http.StatusServiceUnavailable, err.Error(), "nothing is lost; import it again when /readyz is well")
	}
	writeJSON(w, http.StatusOK, answer)
	return nil
}
