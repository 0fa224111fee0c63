package supervisor

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

// filesEnv names the files a role gets from its supervisor, from FirstFD on:
// the channel to the supervisor, then those an earlier run asked it to hold.
const filesEnv = "PERCH_FILES"

// FirstFD is the descriptor of the first file in filesEnv.
const FirstFD = 3

// channelName is what the first file is called.
const channelName = "supervisor"

// tellLimit bounds how long a role waits for a supervisor that does not listen.
const tellLimit = time.Second

// Notifier is a role's way to speak to its supervisor.
type Notifier struct {
	conn *net.UnixConn // nil: there is no supervisor
	held map[string]*os.File
}

// OpenNotifier takes the files that a supervisor gave to this process; without
// one it speaks to nobody. Call it once, before anything is started that could
// inherit them.
func OpenNotifier() Notifier {
	names := strings.Split(os.Getenv(filesEnv), ",")
	if names[0] != channelName {
		return Notifier{}
	}
	_ = os.Unsetenv(filesEnv) // it is about this process, not about its children
	n := Notifier{held: map[string]*os.File{}}
	for i, name := range names {
		syscall.CloseOnExec(FirstFD + i)
		f := os.NewFile(uintptr(FirstFD+i), name)
		if i > 0 {
			n.held[name] = f
			continue
		}
		if c, err := net.FileConn(f); err == nil {
			n.conn, _ = c.(*net.UnixConn) // nil where somebody else made the variable
		}
		_ = f.Close() // FileConn has its own
	}
	return n
}

// Ready says that all doors of the role are open.
func (n Notifier) Ready() { _ = n.tell("ready", nil) }

// Error says in one line why the role is about to end.
func (n Notifier) Error(err error) {
	_ = n.tell("error "+strings.ReplaceAll(err.Error(), "\n", "; "), nil)
}

// Held is a file that an earlier run of this role gave to Hold, or nil. The
// caller closes it; the supervisor keeps its own.
func (n Notifier) Held(name string) *os.File { return n.held[name] }

// Hold asks the supervisor to keep a file, a listening socket as a rule, open
// and to give it to the next run of this role. It ends when the role is stopped
// for good, or by Drop. The caller keeps f. Without a supervisor nothing is held.
func (n Notifier) Hold(name string, f *os.File) error {
	if strings.ContainsAny(name, " ,") || name == "" {
		return fmt.Errorf("hold %q: want a plain name", name)
	}
	raw, err := f.SyscallConn() // Fd would make a socket blocking
	if err != nil {
		return fmt.Errorf("hold %s: %w", name, err)
	}
	var told error
	err = raw.Control(func(fd uintptr) { told = n.tell("hold "+name, syscall.UnixRights(int(fd))) })
	if err := errors.Join(err, told); err != nil {
		return fmt.Errorf("hold %s: %w", name, err)
	}
	return nil
}

// Drop ends Hold.
func (n Notifier) Drop(name string) { _ = n.tell("drop "+name, nil) }

// tell sends one message. An error means that the supervisor is gone or stuck,
// which ends or cannot hinder this process.
func (n Notifier) tell(text string, rights []byte) error {
	if n.conn == nil {
		return nil
	}
	if err := n.conn.SetWriteDeadline(time.Now().Add(tellLimit)); err != nil {
		return err
	}
	_, _, err := n.conn.WriteMsgUnix([]byte(text[:min(len(text), maxMessage)]), rights, nil)
	return err
}

// maxMessage is the longest message of a role in bytes; the rest is cut off.
const maxMessage = 4096

// message is one word of a role with its rest, and the file that came with it.
type message struct {
	word, rest string
	file       *os.File
}

// receive reads one message.
func receive(c *net.UnixConn) (message, error) {
	text, oob := make([]byte, maxMessage), make([]byte, syscall.CmsgSpace(4*4))
	n, oobn, _, _, err := c.ReadMsgUnix(text, oob)
	if err != nil {
		return message{}, err
	}
	var m message
	m.word, m.rest, _ = strings.Cut(string(text[:n]), " ")
	m.file = received(oob[:oobn])
	return m, nil
}

// received takes the first file out of a control message and closes what is
// too much.
func received(oob []byte) (first *os.File) {
	all, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, one := range all {
		fds, err := syscall.ParseUnixRights(&one)
		if err != nil {
			continue
		}
		for _, fd := range fds {
			if first == nil {
				first = os.NewFile(uintptr(fd), "held")
			} else {
				_ = syscall.Close(fd)
			}
		}
	}
	return first
}

// channel makes the two ends of what a role tells its supervisor over. Messages
// keep their borders.
func channel() (ours *net.UnixConn, theirs *os.File, _ error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make channel: %w", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), channelName)
	f := os.NewFile(uintptr(fds[0]), channelName)
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make channel: %w", err)
	}
	ours, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, errors.New("BUG: a unix socket is none")
	}
	return ours, theirs, nil
}
