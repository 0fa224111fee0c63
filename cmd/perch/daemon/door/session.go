package door

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"
)

const (
	cookieName  = "__Host-perch_session" // browsers take it from this very host only, over TLS
	sessionLife = 12 * time.Hour
	codeLife    = 10 * time.Minute
	maxCodes    = 64 // when full the oldest code goes
)

// Sessions turns one-time codes and tokens into sealed cookies. The cookie
// itself holds the caller's token, so a restart of the door ends no session.
type Sessions struct {
	seal cipher.AEAD
	mint func(ctx context.Context, life time.Duration) (token string, err error)
	now  func() time.Time

	mu    sync.Mutex
	codes map[string]time.Time // end of life
}

// NewSessions keeps its key in keyFile. mint makes the bearer token that a
// session opened by a code acts with.
func NewSessions(keyFile string, mint func(context.Context, time.Duration) (string, error), now func() time.Time) (*Sessions, error) {
	key, err := os.ReadFile(keyFile)
	if errors.Is(err, os.ErrNotExist) {
		key = make([]byte, 32)
		rand.Read(key)
		err = os.WriteFile(keyFile, key, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("open session key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("open session key %s: %w: remove it to make a new one, which ends all sessions", keyFile, err)
	}
	seal, err := cipher.NewGCM(block)
	if err != nil {
		return nil, fmt.Errorf("open session key %s: %w", keyFile, err)
	}
	return &Sessions{seal: seal, mint: mint, now: now, codes: map[string]time.Time{}}, nil
}

// Code returns a new login code: good once, for codeLife.
func (s *Sessions) Code() string {
	raw := make([]byte, 20)
	rand.Read(raw)
	code := base64.RawURLEncoding.EncodeToString(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest string
	for c, end := range s.codes {
		if s.now().After(end) {
			delete(s.codes, c)
		} else if oldest == "" || end.Before(s.codes[oldest]) {
			oldest = c
		}
	}
	if len(s.codes) >= maxCodes {
		delete(s.codes, oldest)
	}
	s.codes[code] = s.now().Add(codeLife)
	return code
}

func (s *Sessions) spend(code string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	end, ok := s.codes[code]
	delete(s.codes, code)
	return ok && !s.now().After(end)
}

type session struct {
	Token string    `json:"t"`
	End   time.Time `json:"e"`
}

func (s *Sessions) close(token string, end time.Time) (string, error) {
	text, err := json.Marshal(session{token, end})
	if err != nil {
		return "", fmt.Errorf("encode session: %w", err)
	}
	nonce := make([]byte, s.seal.NonceSize())
	rand.Read(nonce)
	return base64.RawURLEncoding.EncodeToString(s.seal.Seal(nonce, nonce, text, nil)), nil
}

var errNoSession = errors.New("no such session")

func (s *Sessions) open(cookie string) (token string, _ error) {
	raw, err := base64.RawURLEncoding.DecodeString(cookie)
	if err != nil || len(raw) < s.seal.NonceSize() {
		return "", errNoSession
	}
	n := s.seal.NonceSize()
	text, err := s.seal.Open(nil, raw[:n], raw[n:], nil)
	if err != nil {
		return "", errNoSession
	}
	var have session
	if json.Unmarshal(text, &have) != nil || s.now().After(have.End) {
		return "", errNoSession
	}
	return have.Token, nil
}

// routes adds login, logout and whoami.
func (s *Sessions) routes(d *Door) {
	d.mux.HandleFunc("POST /ui/api/v1/login", func(w http.ResponseWriter, r *http.Request) {
		if foreign(r) {
			d.refuse(w, refusal{http.StatusForbidden, "a page of another origin tried to log in"})
			return
		}
		var ask struct{ Code, Token string }
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 64<<10)).Decode(&ask); err != nil {
			d.refuse(w, refusal{http.StatusUnauthorized, "send {\"code\": …} or {\"token\": …}"})
			return
		}
		token := ask.Token
		if ask.Code != "" {
			if !s.spend(ask.Code) {
				d.refuse(w, refusal{http.StatusUnauthorized, "this login link was used already or is older than 10 minutes: `perch ui` prints a new one"})
				return
			}
			minted, err := s.mint(r.Context(), sessionLife)
			if err != nil {
				d.refuse(w, err)
				return
			}
			token = minted
		}
		u, err := d.review(r.Context(), token)
		if err != nil {
			d.refuse(w, err)
			return
		}
		d.Crowd.Known(r.RemoteAddr)
		end := s.now().Add(sessionLife)
		value, err := s.close(token, end)
		if err != nil {
			d.refuse(w, err)
			return
		}
		http.SetCookie(w, &http.Cookie{Name: cookieName, Value: value, Path: "/", Expires: end, HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode})
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(u) // the client is gone if this fails
	})
	d.mux.HandleFunc("POST /ui/api/v1/logout", func(w http.ResponseWriter, _ *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: cookieName, Path: "/", MaxAge: -1, HttpOnly: true, Secure: true, SameSite: http.SameSiteStrictMode})
		w.WriteHeader(http.StatusNoContent)
	})
	d.Handle("GET /ui/api/v1/me", Anyone, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(UserOf(r.Context())) // the client is gone if this fails
	}))
}

// foreign says whether a page of another origin had a browser send a request.
// Programs say neither where a request comes from nor what it is for; a Grafana that
// asks for its users takes Origin away and leaves its own same-origin.
func foreign(r *http.Request) bool {
	return (r.Header.Get("Origin") != "" || r.Header.Get("Sec-Fetch-Site") != "") && !sameSite(r)
}

// sameSite says whether a request that carries the cookie was made by our own
// page, or is the user going to the page (a top-level navigation).
func sameSite(r *http.Request) bool {
	if r.Method == http.MethodGet && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document" {
		return true
	}
	if origin := r.Header.Get("Origin"); origin != "" {
		u, err := url.Parse(origin)
		return err == nil && u.Scheme == "https" && u.Host == r.Host
	}
	return r.Header.Get("Sec-Fetch-Site") == "same-origin"
}
