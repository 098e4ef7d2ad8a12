package e2e

import (
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"luquan/internal/plant"
)

// The maps of the seven models as their makers' books give them, written down
// by hand a second time: neither the gateway's profiles nor its decoder nor
// the plant's encoder is asked. A line is
//
//	point table address type scale offset factor unit [none...]
//
// The value is (raw*scale + offset) * factor, in exact arithmetic; factor turns
// the device's unit into the canonical one; unit - is a whole number without
// one. none lists the raw values (nan: of a float; neg: below zero) by which
// the device has no value. f32lo has its low word first, textN has N words.
var books = map[string]string{
	"kamstrup-multical-603": `
		flow        holding 0  f32 1 0 1/3600 L/s nan
		flow_2      holding 2  f32 1 0 1/3600 L/s nan
		power       holding 4  f32 1 0 1000 W nan
		flow_temp   holding 6  f32 1 0 1 degC nan
		return_temp holding 8  f32 1 0 1 degC nan
		t3          holding 10 f32 1 0 1 degC nan
		t4          holding 12 f32 1 0 1 degC nan`,
	"kamstrup in m3/h": `
		flow        holding 0  f32 1 0 5/18 L/s nan
		power       holding 4  f32 1 0 1000 W nan
		flow_temp   holding 6  f32 1 0 1 degC nan
		return_temp holding 8  f32 1 0 1 degC nan`,
	"kamstrup low word first, input table, m3/h and MW": `
		flow        input 0  f32lo 1 0 5/18 L/s nan
		flow_2      input 2  f32lo 1 0 5/18 L/s nan
		power       input 4  f32lo 1 0 1000000 W nan
		flow_temp   input 6  f32lo 1 0 1 degC nan
		return_temp input 8  f32lo 1 0 1 degC nan
		t3          input 10 f32lo 1 0 1 degC nan
		t4          input 12 f32lo 1 0 1 degC nan`,
	"grundfos-cim-pump": `
		device_status         input 200 u16 1 0 1 - 65535
		control_mode          input 202 u16 1 0 1 - 65535
		alarm_code            input 204 u16 1 0 1 - 65535
		warning_code          input 205 u16 1 0 1 - 65535
		feedback_max          input 210 u16 0.001 0 1 bar 65535
		head                  input 300 u16 0.001 0 1 bar 65535
		flow                  input 301 u16 0.1 0 5/18 L/s 65535
		performance           input 302 u16 0.01 0 1 % 65535
		speed                 input 303 u16 1 0 1 rpm 65535
		frequency             input 304 u16 0.1 0 1 Hz 65535
		setpoint_actual       input 307 u16 0.01 0 1 % 65535
		motor_current         input 308 u16 0.1 0 1 A 65535
		power                 input 311 u32 1 0 1 W 4294967295 65535
		electronics_temp      input 320 u16 0.01 -273.15 1 degC 65535
		liquid_temp           input 321 u16 0.01 -273.15 1 degC 65535
		operating_hours       input 326 u32 1 0 1 h 4294967295 65535
		energy                input 331 u32 1 0 1000 Wh 4294967295 65535
		starts                input 333 u32 1 0 1 - 4294967295 65535
		differential_pressure input 338 u16 0.001 0 1 bar 65535
		heat_energy           input 351 u32 1 0 1000 Wh 4294967295 65535
		heat_power            input 353 u32 0.001 0 1000 W 4294967295 65535
		heat_dt               input 355 s16 0.01 0 1 K -1
		volume                input 356 u32 0.01 0 1 m3 4294967295 65535
		control               holding 100 u16 1 0 1 - 65535
		setpoint              holding 103 u16 0.01 0 1 % 65535`,
	"xerus-rack-pdu": `
		inlet_voltage    holding 12296 f32 1 0 1 V nan
		inlet_current    holding 12298 f32 1 0 1 A nan
		inlet_power      holding 12306 f32 1 0 1 W nan
		inlet_va         holding 12308 f32 1 0 1 VA nan
		inlet_pf         holding 12310 f32 1 0 1 - nan
		inlet_frequency  holding 12322 f32 1 0 1 Hz nan
		inlet_var        holding 12324 f32 1 0 1 var nan
		ocp_current      holding 16394 f32 1 0 1 A nan`,
	"rle-ld5000": `
		device_status    input 0 u16 1 0 1 -
		leak_distance    input 1 u16 1 0 1 m 0
		leak_current     input 3 u16 1 0 1/1000 mA
		cable_length     input 4 u16 1 0 1 m`,
	"schneider-iem3000-pm5xxx": `
		i_l1             holding 2999 f32 1 0 1 A nan
		i_l2             holding 3001 f32 1 0 1 A nan
		i_l3             holding 3003 f32 1 0 1 A nan
		i_avg            holding 3009 f32 1 0 1 A nan
		u_l1             holding 3027 f32 1 0 1 V nan
		u_l2             holding 3029 f32 1 0 1 V nan
		u_l3             holding 3031 f32 1 0 1 V nan
		u_avg            holding 3035 f32 1 0 1 V nan
		p_l1             holding 3053 f32 1 0 1000 W nan
		p_l2             holding 3055 f32 1 0 1000 W nan
		p_l3             holding 3057 f32 1 0 1000 W nan
		p_total          holding 3059 f32 1 0 1000 W nan
		q_total          holding 3067 f32 1 0 1000 var nan
		s_total          holding 3075 f32 1 0 1000 VA nan
		frequency        holding 3109 f32 1 0 1 Hz nan
		energy_import    holding 3203 s64 1 0 1 Wh
		energy_export    holding 3207 s64 1 0 1 Wh
		reactive_import  holding 3219 s64 1 0 1 varh
		reactive_export  holding 3223 s64 1 0 1 varh
		energy_import_l1 holding 3517 s64 1 0 1 Wh`,
	"qdy30a": `
		unit_code holding 2 u16 1 0 1 -
		level     holding 2 qdy 1 0 1 m
		pressure  holding 2 qdy 1 0 1 bar`,
	"remond-water-probe": `
		do             holding 1 f32lo 1 0 1 mg/L nan
		ph             holding 1 f32lo 1 0 1 pH nan
		orp            holding 1 f32lo 1 0 1 mV nan
		turbidity      holding 1 f32lo 1 0 1 NTU nan
		temperature    holding 3 f32lo 1 0 1 degC nan
		output_current holding 5 f32lo 1 0 1 mA nan
		warning        holding 7 u16 1 0 1 -
		measure_mode   holding 8 u16 1 0 1 -
		upper_limit    holding 10 f32lo 1 0 1 -
		lower_limit    holding 12 f32lo 1 0 1 -
		value_offset   holding 18 f32lo 1 0 1 -
		temp_offset    holding 20 f32lo 1 0 1 K
		damping        holding 22 u16 1 0 1 -
		modbus_address holding 25 u16 1 0 1 -
		baud           holding 26 u16 1 0 1 -
		adc            holding 102 u16 1 0 1 -`,
	"apc-smart-ups-modbus": `
		device_status      holding 0 u32 1 0 1 -
		transfer_cause     holding 2 u16 1 0 1 -
		shutdown_signal    holding 18 u16 1 0 1 -
		power_system_error holding 20 u32 1 0 1 -
		battery_error      holding 22 u16 1 0 1 -
		runtime            holding 128 u32 1 0 1 s
		charge             holding 130 u16 1/512 0 1 %
		battery_voltage    holding 131 s16 1/32 0 1 V
		battery_temp       holding 135 s16 1/128 0 1 degC
		load               holding 136 u16 1/256 0 1 %
		output_power       holding 136 load 1/25600 0 1 W
		output_current     holding 140 u16 1/32 0 1 A
		output_voltage     holding 142 u16 1/64 0 1 V
		output_frequency   holding 144 u16 1/128 0 1 Hz
		output_energy      holding 145 u32 1 0 1 Wh
		input_status       holding 150 u16 1 0 1 -
		input_voltage      holding 151 u16 1/64 0 1 V 65535
		efficiency         holding 154 s16 1/128 0 1 % neg
		firmware           holding 516 text8 1 0 1 text
		model              holding 532 text16 1 0 1 text
		serial             holding 564 text8 1 0 1 text
		rated_va           holding 588 u16 1 0 1 VA
		rated_w            holding 589 u16 1 0 1 W
		battery_date       holding 595 date 1 0 1 text
		transfer_high      holding 1026 u16 1 0 1 V
		transfer_low       holding 1027 u16 1 0 1 V`,
	"xy-md02": `
		temperature input 1 s16 0.1 0 1 degC
		humidity    input 2 u16 0.1 0 1 %`,
	"xy-md02 in the holding table": `
		temperature holding 1 s16 0.1 0 1 degC
		humidity    holding 2 u16 0.1 0 1 %`,
}

// others names the book of each device that is set otherwise than its model
// comes.
var others = map[string]string{
	"loop-meter": "kamstrup in m3/h",
	"heat-b":     "kamstrup low word first, input table, m3/h and MW",
	"air-b":      "xy-md02 in the holding table",
}

// entry is one line of a book.
type entry struct {
	point, table          string
	address               int
	typ                   string
	scale, offset, factor *big.Rat
	unit                  string
	none                  []string
}

// book returns the entries of a device by point; t- and r- tell the buses of
// the bench apart.
func book(t *testing.T, d plant.Device) map[string]entry {
	t.Helper()
	name := strings.TrimPrefix(strings.TrimPrefix(d.Name, "t-"), "r-")
	text, ok := books[others[name]]
	if !ok {
		if text, ok = books[d.Profile]; !ok {
			t.Fatalf("no book for %s", d.Profile)
		}
	}
	entries := map[string]entry{}
	for line := range strings.Lines(strings.TrimSpace(text)) {
		f := strings.Fields(line)
		address, err := strconv.Atoi(f[2])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		entries[f[0]] = entry{f[0], f[1], address, f[3], rational(t, f[4]), rational(t, f[5]), rational(t, f[6]), f[7], f[8:]}
	}
	return entries
}

func rational(t *testing.T, s string) *big.Rat {
	t.Helper()
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		t.Fatalf("%q is no number", s)
	}
	return r
}

// words is how many registers the entry takes from its address on.
func (e entry) words() int {
	if n, ok := map[string]int{"u16": 1, "s16": 1, "date": 1, "load": 1, "u32": 2, "f32": 2, "f32lo": 2, "s64": 4, "qdy": 3}[e.typ]; ok {
		return n
	}
	n, err := strconv.Atoi(strings.TrimPrefix(e.typ, "text"))
	if err != nil {
		panic("BUG: type " + e.typ)
	}
	return n
}

// ratedWatts is the register by which output_power counts.
const ratedWatts = 589

// value returns what the console must show: a number or a text; nil when the
// device says that there is none. read gives registers of e's table.
func (e entry) value(t *testing.T, read func(address, n int) []uint16) any {
	t.Helper()
	var raw *big.Rat
	integer := func(n int, signed bool) *big.Rat {
		x := new(big.Int)
		for _, w := range read(e.address, n) {
			x.Add(x.Lsh(x, 16), big.NewInt(int64(w)))
		}
		if signed && x.Bit(16*n-1) == 1 {
			x.Sub(x, new(big.Int).Lsh(big.NewInt(1), uint(16*n)))
		}
		return new(big.Rat).SetInt(x)
	}
	scale := e.scale
	switch e.typ {
	case "u16":
		raw = integer(1, false)
	case "s16":
		raw = integer(1, true)
	case "u32":
		raw = integer(2, false)
	case "s64":
		raw = integer(4, true)
	case "f32", "f32lo":
		w := read(e.address, 2)
		if e.typ == "f32lo" {
			w = []uint16{w[1], w[0]}
		}
		f := math.Float32frombits(uint32(w[0])<<16 | uint32(w[1]))
		if f != f && slices.Contains(e.none, "nan") {
			return nil
		}
		raw = rational(t, strconv.FormatFloat(float64(f), 'f', -1, 32)) // the shortest decimal that is this float
	case "qdy": // unit, number of decimals and value of one reading
		w := read(e.address, 3)
		raw = new(big.Rat).SetInt64(int64(int16(w[2])))
		scale = new(big.Rat).SetFrac(big.NewInt(1), new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(w[1])), nil))
		unit := map[uint16]string{1: "1/100", 2: "1/1000", 3: "10", 4: "1/100000", 5: "1/100"}[w[0]] // cm, mm, MPa, Pa, kPa
		if (w[0] <= 2) != (e.unit == "m") || unit == "" {
			t.Fatalf("%s has the unit code %d", e.point, w[0])
		}
		scale.Mul(scale, rational(t, unit))
	case "load": // percent of the rated power in another register
		raw = integer(1, false)
		scale = new(big.Rat).Mul(scale, new(big.Rat).SetInt64(int64(read(ratedWatts, 1)[0])))
	case "date":
		return time.Date(2000, 1, 1+int(read(e.address, 1)[0]), 0, 0, 0, 0, time.UTC).Format(time.DateOnly)
	default:
		var b []byte
		for _, w := range read(e.address, e.words()) {
			b = append(b, byte(w>>8), byte(w))
		}
		return strings.TrimRight(string(b), "\x00 ")
	}
	for _, n := range e.none {
		if (n == "neg" && raw.Sign() < 0) || (n != "neg" && n != "nan" && raw.Cmp(rational(t, n)) == 0) {
			return nil
		}
	}
	v := new(big.Rat).Mul(raw, scale)
	v.Mul(v.Add(v, e.offset), e.factor)
	f, _ := v.Float64()
	return f
}
