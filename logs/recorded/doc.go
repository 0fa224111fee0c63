// Package recorded counts the lines that queries find, as counters that PromQL
// can ask for: log queries as rules.
//
// It stands before the store: each batch is looked at once, and the new counts
// become durable as positions in the same fsync as the lines. So a line is counted
// exactly once, through kill -9 too, from the moment its rule is in force.
//
// It owns the counters and their limits: rules, series of a rule, series in all. Lines
// beyond the series of a rule are counted under "(others)" and in
// perch_recorded_overflow_lines_total. The expressions of a rule may take a tenth of a
// core on long lines; those beyond are in perch_recorded_slow_lines_total. A series that
// finds nothing for a day is let go. It never reads stored lines again: a rule counts
// what comes.
//
// Methods may be called from any goroutine. Start reading at Append in
// recorded.go; what a rule may say is in rule.go.
package recorded
