package exporter

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// zfsParts are the files of ZFS as a whole, by what their series are called.
var zfsParts = map[string]string{
	"abd": "abdstats", "arc": "arcstats", "dbuf": "dbufstats", "dmu_tx": "dmu_tx", "dnode": "dnodestats", "fm": "fm", "vdev_cache": "vdev_cache_stats",
	"vdev_mirror": "vdev_mirror_stats", "xuio": "xuio_stats", "zfetch": "zfetchstats", "zil": "zil",
}

// poolStates are what a pool may be in.
var poolStates = []string{"online", "degraded", "faulted", "offline", "removed", "unavail", "suspended"}

// zfs tells what ZFS counts as a whole, for each pool and for each of its data sets.
func (n *Node) zfs(s *sender) error {
	root := n.cfg.Proc + "/spl/kstat/zfs"
	list, err := os.ReadDir(root)
	if absent(err) {
		return nil // the module is not loaded
	}
	if err != nil {
		return err
	}
	var wrong []error
	for part, file := range zfsParts {
		rows, _, err := counted(filepath.Join(root, file))
		if err != nil && !absent(err) { // each version has others
			wrong = append(wrong, err)
		}
		for name, v := range rows {
			s.untyped("node_zfs_"+part+"_"+name, "Statistic "+name+" of "+file+" of ZFS.", v)
		}
	}
	for _, d := range list {
		if d.IsDir() {
			if err := zfsPool(s, d.Name(), filepath.Join(root, d.Name())); err != nil && !absent(err) { // a pool may go meanwhile
				wrong = append(wrong, err)
			}
		}
	}
	return errors.Join(wrong...)
}

// zfsPool tells what the files of one pool say.
func zfsPool(s *sender, pool, dir string) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		path := filepath.Join(dir, f.Name())
		switch {
		case f.Name() == "state":
			have, err := word(path)
			if err != nil {
				return err
			}
			for _, state := range poolStates {
				s.gauge("node_zfs_zpool_state", "1 for the state a pool is in.", yes(strings.ToLower(have) == state), "zpool", pool, "state", state)
			}
		case f.Name() == "io":
			if err := poolIO(s, pool, path); err != nil {
				return err
			}
		case strings.HasPrefix(f.Name(), "objset-"):
			rows, dataset, err := counted(path)
			if err != nil {
				return err
			}
			for name, v := range rows {
				s.untyped("node_zfs_zpool_dataset_"+name, "Statistic "+name+" of a data set.", v, "zpool", pool, "dataset", dataset)
			}
		}
	}
	return nil
}

// poolIO reads a line of names and one of numbers, which old versions have.
func poolIO(s *sender, pool, path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var names []string
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if names == nil {
			if len(f) >= 12 && f[0] == "nread" {
				names = f
			}
			continue
		}
		for i := range min(len(f), len(names)) {
			v, err := strconv.ParseFloat(f[i], 64)
			if err != nil {
				return err
			}
			s.untyped("node_zfs_zpool_"+names[i], "Statistic "+names[i]+" of a pool.", v, "zpool", pool)
		}
	}
	return nil
}

// counted reads rows of a name, a type and a number after a line that says so; the
// name of a data set is in such a row as well.
func counted(path string) (rows map[string]float64, dataset string, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, "", err
	}
	const signed, unsigned = "3", "4"
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 3:
		case rows == nil:
			if f[0] == "name" && f[1] == "type" && f[2] == "data" {
				rows = map[string]float64{}
			}
		case f[0] == "dataset_name": // may have spaces
			dataset = strings.TrimSpace(strings.TrimSpace(strings.TrimSpace(line)[len(f[0]):])[len(f[1]):])
		case f[1] == signed || f[1] == unsigned:
			v, err := strconv.ParseFloat(f[2], 64)
			if err != nil {
				return nil, "", err
			}
			rows[strings.ReplaceAll(f[0], "-", "_")] = v
		}
	}
	return rows, dataset, nil
}
