package supervisor

import (
	"fmt"
	"io"
	"os"
	"strings"
)

// Notifier is a role's way to speak to its supervisor.
type Notifier struct{ w io.Writer }

// OpenNotifier uses NotifyFD when the process was started by a supervisor,
// else it speaks to nobody.
func OpenNotifier() Notifier {
	f := os.NewFile(NotifyFD, "supervisor")
	if st, err := f.Stat(); err != nil || st.Mode()&os.ModeNamedPipe == 0 {
		return Notifier{io.Discard}
	}
	return Notifier{f}
}

// Ready says that all doors of the role are open.
func (n Notifier) Ready() { fmt.Fprintln(n.w, "ready") }

// Error says in one line why the role is about to end.
func (n Notifier) Error(err error) {
	fmt.Fprintln(n.w, "error", strings.ReplaceAll(err.Error(), "\n", "; "))
}
