package mqttlink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"
)

// dialer opens the network connection of one Dial under its context, which
// the library's own dialer does not know, and without looking at proxy
// variables of the environment.
type dialer struct {
	ctx context.Context
	tls *tls.Config

	mu      sync.Mutex // guards what follows
	conn    net.Conn
	dialErr error // what opening the connection failed with
}

func (d *dialer) open(u *url.URL, _ mqtt.ClientOptions) (net.Conn, error) {
	nd := &net.Dialer{KeepAlive: 30 * time.Second}
	var conn net.Conn
	var err error
	if u.Scheme == "mqtts" {
		conn, err = (&tls.Dialer{NetDialer: nd, Config: d.tls}).DialContext(d.ctx, "tcp", u.Host)
	} else {
		conn, err = nd.DialContext(d.ctx, "tcp", u.Host)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.conn, d.dialErr = conn, err
	if err != nil {
		return nil, err
	}
	if d.ctx.Err() != nil { // abort came before the connection
		_ = conn.Close()
	}
	return conn, nil
}

// abort ends a handshake that waits for its peer.
func (d *dialer) abort() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.conn != nil {
		_ = d.conn.Close()
	}
}

// cause picks the most telling error of a failed connect.
func (d *dialer) cause(ctx context.Context, err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dialErr != nil {
		return d.dialErr
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// explain makes the sentence for the technician.
func explain(u *url.URL, o Options, err error) error {
	var (
		dns       *net.DNSError
		unknownCA x509.UnknownAuthorityError
		hostname  x509.HostnameError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
		alert     tls.AlertError
		errno     syscall.Errno
	)
	switch {
	case errors.Is(err, context.Canceled):
		return fmt.Errorf("mqtt: connecting to %s was given up: %w", u.Host, err)
	case errors.As(err, &dns):
		return fmt.Errorf("mqtt: cannot find the host %q: %w; check %s and the name server", u.Hostname(), because{"no such name", err}, o.setting())
	case errors.As(err, &unknownCA), errors.As(err, &hostname):
		return fmt.Errorf("mqtt: the certificate of %s is not trusted: %w; check %s and tls.ca", u.Host, err, o.setting())
	case errors.As(err, &invalid):
		return fmt.Errorf("mqtt: the certificate of %s is not valid: %w; check it and this machine's clock", u.Host, err)
	case errors.As(err, &record):
		return fmt.Errorf("mqtt: %s does not speak TLS: %w; check %s: mqtt:// is without TLS", u.Host, err, o.setting())
	case errors.As(err, &alert):
		return fmt.Errorf("mqtt: %s refused our certificate: %w; check tls.cert and tls.key", u.Host, err)
	case errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword), errors.Is(err, packets.ErrorRefusedNotAuthorised):
		return fmt.Errorf("mqtt: %s does not let client %q (user %q) in: %w; check user, password or certificate", u.Host, o.ClientID, o.Username, err)
	case errors.Is(err, packets.ErrorRefusedIDRejected), errors.Is(err, packets.ErrorRefusedBadProtocolVersion),
		errors.Is(err, packets.ErrorRefusedServerUnavailable):
		return fmt.Errorf("mqtt: %s refused client %q: %w", u.Host, o.ClientID, err)
	case errors.As(err, &errno):
		return fmt.Errorf("mqtt: cannot reach %s: %w; check %s", u.Host, because{errno.Error(), err}, o.setting())
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("mqtt: no answer from %s within %v: %w; check %s and the network between", u.Host, connectTimeout, because{"timed out", err}, o.setting())
	case errors.Is(err, io.EOF):
		return fmt.Errorf("mqtt: %s closed the connection before answering: %w; check %s: is it a broker, and with TLS?", u.Host, err, o.setting())
	}
	return fmt.Errorf("mqtt: cannot connect to %s: %w; check %s", u.Host, err, o.setting())
}

// because shows a short reason for a long error and keeps the error for
// errors.Is and As.
type because struct {
	text string
	err  error
}

func (b because) Error() string { return b.text }
func (b because) Unwrap() error { return b.err }
