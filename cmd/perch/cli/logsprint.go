package cli

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"regexp"
	"strings"
	"time"
)

// timestamp has nine digits always, as kubectl's.
const timestamp = "2006-01-02T15:04:05.000000000Z07:00"

// printer writes lines: bare for one container, with time and whose they are for
// many.
type printer struct {
	out                            *bufio.Writer
	to                             io.Writer
	json, many, colour, timestamps bool
	prefix, spaces                 bool
	grep                           *regexp.Regexp

	floor      *line                // older lines were left out, as --tail says
	newest     time.Time            // of the lines so far
	recent     map[string]time.Time // ids of those that are not much older
	kept       int                  // of them, when they were last looked through
	again      map[string]time.Time // ids that a stream may repeat
	containers map[string]string    // by pod, of the lines so far
	mixed      bool                 // a pod has several
}

// maxPods are looked at for several containers.
const maxPods = 1000

func newPrinter(to io.Writer, o logsOptions, args []string) *printer {
	onePod := len(args) == 1 && o.selector == "" && (!strings.Contains(args[0], "/") || strings.HasPrefix(args[0], "po"))
	p := &printer{out: bufio.NewWriter(to), to: to, json: o.output == "json", many: !onePod || o.all || o.events, colour: colour(to), timestamps: o.timestamps, prefix: o.prefix, spaces: o.all,
		containers: map[string]string{}, recent: map[string]time.Time{}}
	if o.grep != "" {
		p.grep = regexp.MustCompile(o.grep) // logQuery has looked
	}
	return p
}

// full says that no more can be written.
func (p *printer) full() bool {
	l, ok := p.to.(*limited)
	return ok && l.left <= 0
}

// look tells what will be printed, so that the first lines look as the others.
func (p *printer) look(lines []line) {
	for i := range lines {
		p.mix(&lines[i])
	}
}

func (p *printer) mix(l *line) {
	if l.Container == "" || p.mixed {
		return
	}
	pod := l.Namespace + "/" + l.Pod
	have, ok := p.containers[pod]
	p.mixed = ok && have != l.Container
	if len(p.containers) < maxPods {
		p.containers[pod] = l.Container
	}
}

var podColours = []string{"36", "35", "33", "34", "32", "96", "95", "94"}

func (p *printer) paint(code, text string) string {
	if !p.colour {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// remember keeps the ids of the lines of the last moment.
func (p *printer) remember(l line) {
	if l.Time.After(p.newest) {
		p.newest = l.Time
	}
	if p.newest.Sub(l.Time) > overlap {
		return
	}
	p.recent[l.ID] = l.Time
	if len(p.recent) >= 2*p.kept {
		maps.DeleteFunc(p.recent, func(_ string, at time.Time) bool { return p.newest.Sub(at) > overlap })
		p.kept = max(len(p.recent), 1000)
	}
}

func (p *printer) print(l line) {
	p.remember(l)
	if p.json {
		p.out.Write(l.raw)
		return
	}
	p.mix(&l)
	if p.prefix { // as kubectl writes it
		fmt.Fprintf(p.out, "[pod/%s/%s] ", l.Pod, l.Container)
	}
	if p.timestamps {
		fmt.Fprintf(p.out, "%s ", l.Time.UTC().Format(timestamp))
	}
	if p.many && !p.prefix && !p.timestamps {
		fmt.Fprintf(p.out, "%s ", p.paint("2", l.Time.Local().Format("15:04:05.000")))
	}
	if who := p.who(l); who != "" && !p.prefix {
		h := 0
		for _, r := range l.Pod + l.Container {
			h = h*31 + int(r)
		}
		fmt.Fprintf(p.out, "%s ", p.paint(podColours[uint(h)%uint(len(podColours))], who))
	}
	text := strings.TrimRight(l.Line, "\n")
	if l.Kind == "event" {
		text = p.paint("35", "● "+text)
	} else if p.grep != nil && p.colour {
		text = p.grep.ReplaceAllStringFunc(text, func(m string) string { return p.paint("43;30", m) })
	} else if code, ok := map[string]string{"error": "31", "fatal": "31", "warn": "33"}[l.Level]; ok {
		text = p.paint(code, text)
	}
	p.out.WriteString(text)
	p.out.WriteByte('\n')
}

// who wrote a line, as shortly as the lines allow: [namespace/][pod][/container].
func (p *printer) who(l line) string {
	var parts []string
	if p.spaces && l.Namespace != "" {
		parts = append(parts, l.Namespace)
	}
	if p.many && l.Pod != "" {
		pod := l.Pod
		if i := strings.LastIndexByte(pod, '-'); i >= 0 && len(pod)-i <= 11 && !p.spaces {
			pod = pod[i+1:]
		}
		parts = append(parts, pod)
	}
	if p.mixed && l.Container != "" {
		parts = append(parts, l.Container)
	}
	return strings.Join(parts, "/")
}
