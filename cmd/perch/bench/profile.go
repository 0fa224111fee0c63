package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"
)

// stack is one row of a profile: functions from the innermost on, and what was
// measured there, one value for each kind.
type stack struct {
	frames []string
	values []int64
}

// profile is what Go's profiler wrote.
type profile struct {
	kinds  []string // "cpu", "alloc_space", …
	stacks []stack
}

// profile asks a role for a profile; query says which and how long.
func (c cluster) profile(ctx context.Context, role, query string) (profile, error) {
	body, err := c.ask(ctx, role+"-debug", "/debug/pprof/"+query)
	if err != nil {
		return profile{}, err
	}
	defer body.Close()
	p, err := readProfile(body)
	if err != nil {
		return profile{}, fmt.Errorf("read profile of %s: %w", role, err)
	}
	return p, nil
}

// readProfile reads the format of github.com/google/pprof/proto/profile.proto.
func readProfile(r io.Reader) (profile, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return profile{}, err
	}
	text, err := io.ReadAll(io.LimitReader(z, 64<<20))
	if err != nil {
		return profile{}, err
	}
	var raw rawProfile
	if err := each(text, raw.field); err != nil {
		return profile{}, err
	}
	return raw.profile()
}

// rawProfile has numbers in place of names.
type rawProfile struct {
	kinds     []uint64
	samples   []rawSample
	locations map[uint64][]uint64 // functions, innermost first
	functions map[uint64]uint64   // name
	words     []string
}

type rawSample struct{ locations, values []uint64 }

func (p *rawProfile) field(n protowire.Number, v uint64, b []byte) error {
	switch n {
	case 1: // sample_type
		return each(b, func(n protowire.Number, v uint64, _ []byte) error {
			if n == 1 {
				p.kinds = append(p.kinds, v)
			}
			return nil
		})
	case 2: // sample
		var s rawSample
		err := each(b, func(n protowire.Number, v uint64, b []byte) error {
			switch n {
			case 1:
				s.locations = numbers(s.locations, v, b)
			case 2:
				s.values = numbers(s.values, v, b)
			}
			return nil
		})
		p.samples = append(p.samples, s)
		return err
	case 4: // location
		var id uint64
		var functions []uint64
		err := each(b, func(n protowire.Number, v uint64, b []byte) error {
			switch n {
			case 1:
				id = v
			case 4: // line
				return each(b, func(n protowire.Number, v uint64, _ []byte) error {
					if n == 1 {
						functions = append(functions, v)
					}
					return nil
				})
			}
			return nil
		})
		if p.locations == nil {
			p.locations = map[uint64][]uint64{}
		}
		p.locations[id] = functions
		return err
	case 5: // function
		var id, name uint64
		err := each(b, func(n protowire.Number, v uint64, _ []byte) error {
			switch n {
			case 1:
				id = v
			case 2:
				name = v
			}
			return nil
		})
		if p.functions == nil {
			p.functions = map[uint64]uint64{}
		}
		p.functions[id] = name
		return err
	case 6: // string_table
		p.words = append(p.words, string(b))
	}
	return nil
}

func (p *rawProfile) profile() (profile, error) {
	word := func(i uint64) string {
		if i < uint64(len(p.words)) {
			return p.words[i]
		}
		return ""
	}
	var out profile
	for _, k := range p.kinds {
		out.kinds = append(out.kinds, word(k))
	}
	for _, s := range p.samples {
		if len(s.values) != len(p.kinds) {
			return profile{}, errors.New("a sample has too few values")
		}
		var x stack
		for _, l := range s.locations {
			for _, f := range p.locations[l] {
				x.frames = append(x.frames, word(p.functions[f]))
			}
		}
		for _, v := range s.values {
			x.values = append(x.values, int64(v))
		}
		out.stacks = append(out.stacks, x)
	}
	return out, nil
}

// each calls f for the fields of a message; numbers come as v, the rest as b.
func each(text []byte, f func(n protowire.Number, v uint64, b []byte) error) error {
	for len(text) > 0 {
		n, kind, size := protowire.ConsumeTag(text)
		if size < 0 {
			return protowire.ParseError(size)
		}
		text = text[size:]
		var v uint64
		var b []byte
		switch kind {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(text)
		case protowire.BytesType:
			b, size = protowire.ConsumeBytes(text)
		default:
			size = protowire.ConsumeFieldValue(n, kind, text)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := f(n, v, b); err != nil {
			return err
		}
		text = text[size:]
	}
	return nil
}

// numbers appends one number, or a packed list.
func numbers(have []uint64, v uint64, packed []byte) []uint64 {
	if packed == nil {
		return append(have, v)
	}
	for len(packed) > 0 {
		v, n := protowire.ConsumeVarint(packed)
		if n < 0 {
			return have
		}
		have, packed = append(have, v), packed[n:]
	}
	return have
}

// shares says which part of a kind of value each source has. Of who names the
// source of a stack; "" is spread over the others later.
func (p profile) shares(kind string, who func(frames []string) string) map[string]float64 {
	at := slices.Index(p.kinds, kind)
	if at < 0 {
		return nil
	}
	out := map[string]float64{}
	sum := 0.0
	for _, s := range p.stacks {
		v := float64(s.values[at])
		out[who(s.frames)] += v
		sum += v
	}
	for k := range out {
		out[k] /= max(sum, 1)
	}
	return out
}

// has says whether one of the frames begins with one of the names.
func has(frames []string, names ...string) bool {
	return slices.ContainsFunc(frames, func(f string) bool {
		return slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(f, n) })
	})
}
