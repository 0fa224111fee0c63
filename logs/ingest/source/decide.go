package source

import "time"

// balance is what a sender may still push, in shares of its burst: 1 is a full
// burst, less than 0 is debt.
type balance struct {
	share float64
	at    time.Time
}

// after lets time pass and takes lines and bytes. The dearer of both counts. The
// wait is how long the sender must rest until it owes nothing.
func (b balance) after(l Limits, now time.Time, lines, bytes int) (balance, time.Duration) {
	if passed := now.Sub(b.at); passed > 0 {
		b.share = min(1, b.share+passed.Seconds()/l.Burst.Seconds())
		b.at = now
	}
	whole := l.Burst.Seconds()
	b.share -= max(float64(lines)/(l.Lines*whole), float64(bytes)/(l.Bytes*whole))
	if b.share >= 0 {
		return b, 0
	}
	return b, time.Duration(-b.share * float64(l.Burst))
}
