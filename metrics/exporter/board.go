package exporter

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/prometheus/procfs/sysfs"
)

// scaling tells how fast the cpus may run and do.
func (n *Node) scaling(s *sender) error {
	if _, err := os.Stat(n.cfg.Sys + "/devices/system/cpu/cpufreq"); os.IsNotExist(err) {
		return nil // the kernel leaves it to the host
	}
	cpus, err := n.sys.SystemCpufreq() // all at once: a cpu that sleeps takes its time to answer
	if err != nil {
		return err
	}
	for _, c := range cpus {
		for name, kHz := range map[string]*uint64{
			"frequency": c.CpuinfoCurrentFrequency, "frequency_min": c.CpuinfoMinimumFrequency, "frequency_max": c.CpuinfoMaximumFrequency,
			"scaling_frequency": c.ScalingCurrentFrequency, "scaling_frequency_min": c.ScalingMinimumFrequency, "scaling_frequency_max": c.ScalingMaximumFrequency,
		} {
			if kHz != nil {
				s.gauge("node_cpu_"+name+"_hertz", "How fast a cpu runs, "+name+".", float64(*kHz)*1e3, "cpu", c.Name)
			}
		}
		if c.Governor == "" {
			continue
		}
		for _, governor := range strings.Fields(c.AvailableGovernors) {
			s.gauge("node_cpu_scaling_governor", "1 for what decides how fast a cpu runs.", yes(governor == c.Governor), "cpu", c.Name, "governor", governor)
		}
	}
	return nil
}

// dmi tells what the maker of the machine wrote into it, which is read once.
func (n *Node) dmi(s *sender) error {
	pairs, err := n.maker()
	if err != nil || len(pairs) == 0 {
		return err
	}
	s.gauge("node_dmi_info", "Maker and model of the machine.", 1, pairs...)
	return nil
}

// readDMI is nothing on a machine without such a table.
func readDMI(sys sysfs.FS) ([]string, error) {
	d, err := sys.DMIClass()
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var pairs []string
	for name, v := range map[string]*string{
		"bios_date": d.BiosDate, "bios_release": d.BiosRelease, "bios_vendor": d.BiosVendor, "bios_version": d.BiosVersion,
		"board_asset_tag": d.BoardAssetTag, "board_name": d.BoardName, "board_serial": d.BoardSerial, "board_vendor": d.BoardVendor, "board_version": d.BoardVersion,
		"chassis_asset_tag": d.ChassisAssetTag, "chassis_serial": d.ChassisSerial, "chassis_vendor": d.ChassisVendor, "chassis_version": d.ChassisVersion,
		"product_family": d.ProductFamily, "product_name": d.ProductName, "product_serial": d.ProductSerial, "product_sku": d.ProductSKU,
		"product_uuid": d.ProductUUID, "product_version": d.ProductVersion, "system_vendor": d.SystemVendor,
	} {
		if v != nil { // some are for root only
			pairs = append(pairs, name, strings.ToValidUTF8(*v, "\uFFFD"))
		}
	}
	return pairs, nil
}

// memoryErrors tells what the controllers of ECC memory counted.
func (n *Node) memoryErrors(s *sender) error {
	root := n.cfg.Sys + "/devices/system/edac/mc"
	controllers, err := numbered(root, "mc")
	if err != nil {
		return err
	}
	for id, dir := range controllers {
		of := []string{"controller", id}
		for kind, name := range map[string]string{"ce": "correctable_errors_total", "ue": "uncorrectable_errors_total"} {
			all, err := number(dir + "/" + kind + "_count")
			if err != nil {
				return err
			}
			unplaced, err := number(dir + "/" + kind + "_noinfo_count")
			if err != nil {
				return err
			}
			s.counter("node_edac_"+name, "Errors of memory.", all, of...)
			s.counter("node_edac_csrow_"+name, "Errors of a row of memory.", unplaced, join(of, "csrow", "unknown")...)
		}
		rows, err := numbered(dir, "csrow")
		if err != nil {
			return err
		}
		for row, dir := range rows {
			for kind, name := range map[string]string{"ce": "correctable_errors_total", "ue": "uncorrectable_errors_total"} {
				v, err := number(dir + "/" + kind + "_count")
				if err != nil {
					return err
				}
				s.counter("node_edac_csrow_"+name, "Errors of a row of memory.", v, join(of, "csrow", row)...)
			}
		}
	}
	return nil
}

// numbered are the paths of a directory's entries that are called prefix and a
// number, by number. There are none where there is no such directory.
func numbered(dir, prefix string) (map[string]string, error) {
	list, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, d := range list {
		if id, ok := strings.CutPrefix(d.Name(), prefix); ok {
			if _, err := strconv.ParseUint(id, 10, 32); err == nil {
				out[id] = filepath.Join(dir, d.Name())
			}
		}
	}
	return out, nil
}

// supplies tells about batteries and power supplies.
func (n *Node) supplies(s *sender) error {
	list, err := n.sys.PowerSupplyClass()
	if absent(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, p := range list {
		for times, values := range map[float64]map[string]*int64{
			1: {
				"authentic": p.Authentic, "calibrate": p.Calibrate, "capacity": p.Capacity, "capacity_alert_max": p.CapacityAlertMax, "capacity_alert_min": p.CapacityAlertMin,
				"cyclecount": p.CycleCount, "online": p.Online, "present": p.Present, "time_to_empty_seconds": p.TimeToEmptyNow, "time_to_full_seconds": p.TimeToFullNow,
			},
			10: {
				"temp_celsius": p.Temp, "temp_alert_max_celsius": p.TempAlertMax, "temp_alert_min_celsius": p.TempAlertMin, "temp_ambient_celsius": p.TempAmbient,
				"temp_ambient_max_celsius": p.TempAmbientMax, "temp_ambient_min_celsius": p.TempAmbientMin, "temp_max_celsius": p.TempMax, "temp_min_celsius": p.TempMin,
			},
			1e6: {
				"current_boot": p.CurrentBoot, "current_max": p.CurrentMax, "current_ampere": p.CurrentNow,
				"energy_empty": p.EnergyEmpty, "energy_empty_design": p.EnergyEmptyDesign, "energy_full": p.EnergyFull, "energy_full_design": p.EnergyFullDesign, "energy_watthour": p.EnergyNow,
				"voltage_boot": p.VoltageBoot, "voltage_max": p.VoltageMax, "voltage_max_design": p.VoltageMaxDesign, "voltage_min": p.VoltageMin,
				"voltage_min_design": p.VoltageMinDesign, "voltage_volt": p.VoltageNow, "voltage_ocv": p.VoltageOCV,
				"charge_control_limit": p.ChargeControlLimit, "charge_control_limit_max": p.ChargeControlLimitMax, "charge_counter": p.ChargeCounter, "charge_empty": p.ChargeEmpty,
				"charge_empty_design": p.ChargeEmptyDesign, "charge_full": p.ChargeFull, "charge_full_design": p.ChargeFullDesign, "charge_ampere": p.ChargeNow,
				"charge_term_current": p.ChargeTermCurrent, "constant_charge_current": p.ConstantChargeCurrent, "constant_charge_current_max": p.ConstantChargeCurrentMax,
				"constant_charge_voltage": p.ConstantChargeVoltage, "constant_charge_voltage_max": p.ConstantChargeVoltageMax,
				"precharge_current": p.PrechargeCurrent, "input_current_limit": p.InputCurrentLimit, "power_watt": p.PowerNow,
			},
		} {
			for name, v := range values {
				if v != nil {
					s.gauge("node_power_supply_"+name, "Power supply, "+name+".", float64(*v)/times, "power_supply", p.Name)
				}
			}
		}
		about := []string{"power_supply", p.Name}
		for name, v := range map[string]string{
			"capacity_level": p.CapacityLevel, "charge_type": p.ChargeType, "health": p.Health, "manufacturer": p.Manufacturer, "model_name": p.ModelName,
			"serial_number": p.SerialNumber, "status": p.Status, "technology": p.Technology, "type": p.Type, "usb_type": p.UsbType, "scope": p.Scope,
		} {
			if v != "" {
				about = append(about, name, strings.ToValidUTF8(v, "\uFFFD"))
			}
		}
		s.gauge("node_power_supply_info", "About a power supply.", 1, about...)
	}
	return nil
}

// energy tells what parts of the processor used, for those who may know: it gives
// away what others compute.
func (n *Node) energy(s *sender) error {
	zones, err := sysfs.GetRaplZones(n.sys)
	if absent(err) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, z := range zones {
		v, err := z.GetEnergyMicrojoules()
		if errors.Is(err, fs.ErrPermission) {
			return nil
		}
		if err != nil {
			return err
		}
		s.counter("node_rapl_"+lettered(z.Name)+"_joules_total", "Energy that "+z.Name+" used.", float64(v)/1e6, "index", strconv.Itoa(z.Index), "path", z.Path)
	}
	return nil
}
