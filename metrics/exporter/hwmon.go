package exporter

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// chipKinds are the kinds of sensors a chip's files are looked at for.
var chipKinds = []string{"vrm", "beep_enable", "update_interval", "in", "cpu", "fan", "pwm", "temp", "curr", "power", "energy", "humidity", "intrusion", "freq"}

// sensor is what a chip tells of one of them: properties by their name, which is
// "input" for the reading itself.
type sensor struct {
	kind string
	told map[string]string
}

// chips tells what the sensors of the board measure.
func (n *Node) chips(s *sender) error {
	class := n.cfg.Sys + "/class/hwmon"
	list, err := os.ReadDir(class)
	if os.IsNotExist(err) {
		return nil // such as in a virtual machine
	}
	if err != nil {
		return err
	}
	have := map[string]map[string]sensor{} // by chip: a device may have several, which share their name
	for _, d := range list {
		dir := filepath.Join(class, d.Name())
		chip := chipName(dir)
		if name, err := word(dir + "/name"); err == nil && lower(name) != "" {
			s.gauge("node_hwmon_chip_names", "What a chip is called.", 1, "chip", chip, "chip_name", lower(name))
		}
		if have[chip] == nil {
			have[chip] = map[string]sensor{}
		}
		for _, of := range []string{dir, dir + "/device"} { // drivers of old put their files there
			if err := readSensors(of, have[chip]); err != nil && !os.IsNotExist(err) {
				return err
			}
		}
	}
	for chip, sensors := range have {
		for name, x := range sensors {
			x.write(s, []string{"chip", chip, "sensor", name})
		}
	}
	return nil
}

// chipName is the place of a chip's device, which stays the same when drivers are
// loaded in another order. A chip without a device has a name.
func chipName(dir string) string {
	if device, err := filepath.EvalSymlinks(dir + "/device"); err == nil {
		if name := lower(filepath.Base(device)); name != "" {
			return strings.TrimPrefix(lower(filepath.Base(filepath.Dir(device)))+"_"+name, "_")
		}
	}
	if name, err := word(dir + "/name"); err == nil && lower(name) != "" {
		return lower(name)
	}
	return lower(filepath.Base(dir))
}

// lower makes part of a name of a metric of text.
func lower(text string) string { return strings.Trim(lettered(strings.ToLower(text)), "_") }

// lettered has an underscore for what a name of a metric must not have.
func lettered(text string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == ':' || r == '_' {
			return r
		}
		return '_'
	}, text)
}

// readSensors adds what the files of a directory tell; what is known stays.
func readSensors(dir string, have map[string]sensor) error {
	files, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, f := range files {
		kind, id, property, ok := sensorFile(f.Name())
		if !ok {
			continue
		}
		text, err := word(filepath.Join(dir, f.Name()))
		if err != nil {
			continue // a sensor that is not connected
		}
		x, known := have[kind+id]
		if !known {
			x = sensor{kind, map[string]string{}}
			have[kind+id] = x
		}
		if _, known := x.told[property]; !known {
			x.told[property] = text
		}
	}
	return nil
}

// sensorFile takes the name of a file apart: temp1_max is the property max of temp
// 1; vrm is of vrm 0.
func sensorFile(name string) (kind, id, property string, ok bool) {
	at := strings.IndexAny(name, "0123456789")
	if at < 0 {
		return name, "0", "", slices.Contains(chipKinds, name)
	}
	rest := strings.TrimLeft(name[at:], "0123456789")
	kind, property = name[:at], strings.TrimPrefix(rest, "_")
	number, err := strconv.Atoi(name[at : len(name)-len(rest)])
	return kind, strconv.Itoa(number), property, err == nil && slices.Contains(chipKinds, kind) && (rest == "" || property != "" && rest[0] == '_')
}

// write tells each property in the unit its kind has. The kernel's are thousandths,
// and millionths of what is large.
func (x sensor) write(s *sender, of []string) {
	label := x.told["label"]
	if label != "" {
		s.gauge("node_hwmon_sensor_label", "What a sensor is called.", 1, join(of, "label", strings.ToValidUTF8(label, "\uFFFD"))...)
	}
	for property, text := range x.told {
		v, err := strconv.ParseFloat(text, 64)
		if err != nil || property == "label" {
			continue
		}
		name := "node_hwmon_" + x.kind
		if _, both := x.told[""]; property != "" && (property != "input" || both) {
			name += "_" + lower(property)
		}
		help := "Property " + property + " of a sensor of the kind " + x.kind + "."
		interval := property == "average_interval" || property == "average_interval_min" || property == "average_interval_max"
		switch {
		case x.kind == "beep_enable":
			s.gauge("node_hwmon_beep_enabled", "1 if a chip may beep.", yes(text == "1"), of...)
		case x.kind == "vrm":
			s.gauge("node_hwmon_voltage_regulator_version", "Version of the voltage regulator.", v, of...)
		case x.kind == "update_interval":
			s.gauge("node_hwmon_update_interval_seconds", "How often a chip measures.", v/1e3, of...)
		case property == "fault" || property == "alarm":
			s.gauge(name, help, v, of...)
		case property == "beep":
			s.gauge(name+"_enabled", help, v, of...)
		case x.kind == "in" || x.kind == "cpu":
			s.gauge(name+"_volts", help, v/1e3, of...)
		case x.kind == "temp" && property != "type":
			s.gauge(name+"_celsius", help, v/1e3, of...)
		case x.kind == "curr":
			s.gauge(name+"_amps", help, v/1e3, of...)
		case x.kind == "energy":
			s.counter(name+"_joule_total", help, v/1e6, of...)
		case x.kind == "power" && property == "accuracy", x.kind == "humidity": // of which node_exporter makes a tenth of the ratio
			s.gauge(name, help, v/1e6, of...)
		case x.kind == "power" && interval:
			s.gauge(name+"_seconds", help, v/1e3, of...)
		case x.kind == "power":
			s.gauge(name+"_watt", help, v/1e6, of...)
		case x.kind == "fan" && (property == "input" || property == "min" || property == "max" || property == "target"):
			s.gauge(name+"_rpm", help, v, of...)
		case x.kind == "freq":
			if property == "input" && lower(label) != "" {
				s.gauge(name+"_freq_mhz", help, v/1e6, "chip", of[1], "sensor", lower(label))
			}
		default:
			s.gauge(name, help, v, of...)
		}
	}
}
