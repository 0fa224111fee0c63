package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/gob"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"perch/logs/replica"
	"perch/logs/store"
)

// A copy is measured as two processes beside that of the store: one sends, one
// receives. In perch the sender is part of the store's process; here it asks
// that for its files.

// serveFiles tells the sender what the store consists of.
func serveFiles(s *store.Store) (addr string, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() {
		_ = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { // ends with the process
			files, err := s.Files()
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			_ = gob.NewEncoder(w).Encode(files) // the sender is gone if this fails
		}))
	}()
	return l.Addr().String(), nil
}

// keep is the process that receives, over TLS as nodes talk to each other.
func keep(dir, profile string) error {
	stop, err := startProfile(profile)
	if err != nil {
		return err
	}
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	k, err := replica.NewKeeper(replica.DefaultKeep(filepath.Join(dir, "copies"), filepath.Join(dir, "scratch")), log, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	cert, err := certificate()
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{Handler: k.Ships(), TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13}, ReadHeaderTimeout: time.Minute}
	go func() { _ = server.ServeTLS(l, "", "") }() // ends with the process
	return tellCPU(figures{Ready: "https://" + l.Addr().String()}, func(got *figures) error {
		for _, c := range k.Copies() {
			got.Disk += c.Bytes
		}
		return nil
	})
}

func certificate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	t := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// ship is the process that sends. Asked for figures, it answers when everything
// is there.
func ship(dir, filesAddr, to, profile string) error {
	stop, err := startProfile(profile)
	if err != nil {
		return err
	}
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	list := func() (f store.Files, err error) {
		resp, err := http.Get("http://" + filesAddr)
		if err != nil {
			return f, err
		}
		defer resp.Body.Close() // read only
		if resp.StatusCode != http.StatusOK {
			return f, fmt.Errorf("ask for files: status %d", resp.StatusCode)
		}
		return f, gob.NewDecoder(resp.Body).Decode(&f)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}} // as a node does; of this machine
	cfg := replica.DefaultShip("n1", dir)
	s, err := replica.NewShipper(cfg, list, func() []replica.Member { return []replica.Member{{Node: "n2", URL: to}} }, client, log, prometheus.NewRegistry())
	if err != nil {
		return err
	}
	go func() { _ = s.Run(context.Background()) }() // ends with the process
	return tellCPU(figures{Ready: "yes"}, func(*figures) error {
		asked := time.Now()
		for {
			now := s.Status()
			if now.Whole && now.Pending == 0 && now.At.After(asked) {
				return nil
			}
			if time.Since(asked) > 2*time.Minute {
				return fmt.Errorf("the copy is not whole: %+v", now)
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
}

// tellCPU says that it is ready, and then its figures for each line of stdin.
func tellCPU(ready figures, more func(*figures) error) error {
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(ready); err != nil {
		return err
	}
	start := cpuSeconds()
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		var got figures
		if err := more(&got); err != nil {
			return err
		}
		got.CPU, got.Peak = cpuSeconds()-start, peakMB()
		if err := out.Encode(got); err != nil {
			return err
		}
	}
	return in.Err()
}
