package stats

// Families tells of each series' family its name, help and kind, in the order of
// the tables; some names come twice, from two of them.
func Families(tell func(name, help string, kind Kind)) {
	for _, table := range [][]family{fastTable(), specTable()} {
		for _, f := range table {
			tell(f.name, f.help, f.kind)
		}
	}
	for _, f := range restTable() {
		tell(f.name, f.help, f.kind)
	}
}
