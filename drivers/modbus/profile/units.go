package profile

import (
	"maps"
	"math/big"
	"slices"
	"strings"

	"luquan/internal/conffile"
)

// unit is a source unit: value in the canonical unit = x*factor + offset.
// Exact rationals, because 1 m3/h is 1000/3600 L/s and no decimal.
type unit struct {
	dim    string // what it measures; only units of one dimension convert
	canon  string // the canonical unit it becomes
	factor string // of big.Rat: "1000", "1/3600"
	offset string
}

// units are the units a profile may name. The canonical ones are those that
// stand for themselves; docs/units.md lists them and a test holds the two
// together. A released factor never changes.
//
// Running hours stay hours, loop currents mA and redox mV: that is how they
// are read. as: on a point chooses another canonical unit of the dimension.
var units = map[string]unit{
	"W": {"power", "W", "1", ""}, "kW": {"power", "W", "1000", ""}, "MW": {"power", "W", "1000000", ""}, "GJ/h": {"power", "W", "2500000/9", ""}, "MJ/h": {"power", "W", "2500/9", ""},
	"Wh": {"energy", "Wh", "1", ""}, "kWh": {"energy", "Wh", "1000", ""}, "MWh": {"energy", "Wh", "1000000", ""}, "GWh": {"energy", "Wh", "1000000000", ""},
	"J": {"energy", "Wh", "1/3600", ""}, "kJ": {"energy", "Wh", "10/36", ""}, "MJ": {"energy", "Wh", "2500/9", ""}, "GJ": {"energy", "Wh", "2500000/9", ""},
	"var": {"reactive power", "var", "1", ""}, "kvar": {"reactive power", "var", "1000", ""}, "Mvar": {"reactive power", "var", "1000000", ""},
	"varh": {"reactive energy", "varh", "1", ""}, "kvarh": {"reactive energy", "varh", "1000", ""}, "Mvarh": {"reactive energy", "varh", "1000000", ""},
	"VA": {"apparent power", "VA", "1", ""}, "kVA": {"apparent power", "VA", "1000", ""}, "MVA": {"apparent power", "VA", "1000000", ""},
	"VAh": {"apparent energy", "VAh", "1", ""}, "kVAh": {"apparent energy", "VAh", "1000", ""},
	"V": {"voltage", "V", "1", ""}, "kV": {"voltage", "V", "1000", ""}, "mV": {"voltage", "mV", "1", ""},
	"A": {"current", "A", "1", ""}, "kA": {"current", "A", "1000", ""}, "mA": {"current", "mA", "1", ""}, "uA": {"current", "mA", "1/1000", ""},
	"Ah": {"charge", "Ah", "1", ""},
	"Hz": {"frequency", "Hz", "1", ""}, "ohm": {"resistance", "ohm", "1", ""}, "kohm": {"resistance", "ohm", "1000", ""}, "Mohm": {"resistance", "ohm", "1000000", ""},
	"degC": {"temperature", "degC", "1", ""}, "degF": {"temperature", "degC", "5/9", "-160/9"},
	"K": {"temperature difference", "K", "1", ""}, "degF-difference": {"temperature difference", "K", "5/9", ""},
	"bar": {"pressure", "bar", "1", ""}, "mbar": {"pressure", "bar", "1/1000", ""}, "Pa": {"pressure", "bar", "1/100000", ""}, "hPa": {"pressure", "bar", "1/1000", ""},
	"kPa": {"pressure", "bar", "1/100", ""}, "MPa": {"pressure", "bar", "10", ""}, "psi": {"pressure", "bar", "6894757293168/100000000000000", ""},
	"L/s": {"flow", "L/s", "1", ""}, "L/min": {"flow", "L/s", "1/60", ""}, "L/h": {"flow", "L/s", "1/3600", ""}, "m3/h": {"flow", "L/s", "10/36", ""}, "m3/s": {"flow", "L/s", "1000", ""}, "cm3/min": {"flow", "L/s", "1/60000", ""},
	"gal/s": {"flow", "L/s", "3785411784/1000000000", ""}, "gal/min": {"flow", "L/s", "3785411784/60000000000", ""}, "gal/h": {"flow", "L/s", "3785411784/3600000000000", ""},
	"ft3/h": {"flow", "L/s", "28316846592/3600000000000", ""}, "ft3/min": {"flow", "L/s", "28316846592/60000000000", ""}, "m3/min": {"flow", "L/s", "1000/60", ""}, "m3/d": {"flow", "L/s", "1000/86400", ""},
	"Nm3/h": {"normal flow", "Nm3/h", "1", ""}, "Nm3": {"normal volume", "Nm3", "1", ""},
	"m3": {"volume", "m3", "1", ""}, "L": {"volume", "m3", "1/1000", ""}, "gal": {"volume", "m3", "3785411784/1000000000000", ""}, "ft3": {"volume", "m3", "28316846592/1000000000000", ""},
	"kg": {"mass", "kg", "1", ""}, "g": {"mass", "kg", "1/1000", ""}, "t": {"mass", "kg", "1000", ""},
	"kg/s": {"mass flow", "kg/s", "1", ""}, "t/h": {"mass flow", "kg/s", "10/36", ""}, "kg/h": {"mass flow", "kg/s", "1/3600", ""},
	"m": {"length", "m", "1", ""}, "cm": {"length", "m", "1/100", ""}, "mm": {"length", "m", "1/1000", ""}, "ft": {"length", "m", "3048/10000", ""}, "in": {"length", "m", "254/10000", ""},
	"m/s": {"speed", "m/s", "1", ""}, "ft/s": {"speed", "m/s", "3048/10000", ""}, "mm/s": {"vibration", "mm/s", "1", ""}, "rpm": {"rotation", "rpm", "1", ""}, "deg": {"angle", "deg", "1", ""},
	"s": {"time", "s", "1", ""}, "ms": {"time", "s", "1/1000", ""}, "min": {"time", "s", "60", ""}, "h": {"time", "h", "1", ""}, "d": {"time", "h", "24", ""},
	"%": {"share", "%", "1", ""}, "%FSD": {"share", "%", "1", ""}, // of the full scale of the instrument
	"ohm/m": {"resistance of a length", "ohm/m", "1", ""}, "ohm/ft": {"resistance of a length", "ohm/m", "10000/3048", ""},
	"mg/L": {"concentration", "mg/L", "1", ""}, "g/m3": {"concentration", "mg/L", "1", ""}, "g/L": {"concentration", "mg/L", "1000", ""}, "ug/L": {"concentration", "mg/L", "1/1000", ""},
	"ppm": {"volume share", "ppm", "1", ""}, "ppb": {"volume share", "ppm", "1/1000", ""}, "%LEL": {"explosive share", "%LEL", "1", ""},
	"NTU": {"turbidity", "NTU", "1", ""}, "FNU": {"turbidity", "NTU", "1", ""}, "FTU": {"turbidity", "NTU", "1", ""}, // all three scatter at 90 degrees, scaled by formazin
	"EBC": {"haze", "EBC", "1", ""}, "pH": {"acidity", "pH", "1", ""}, "uS/cm": {"conductivity", "uS/cm", "1", ""}, "mS/cm": {"conductivity", "uS/cm", "1000", ""},
	"MJ/Nm3": {"calorific value", "MJ/Nm3", "1", ""}, "kg/m3": {"density", "kg/m3", "1", ""}, "dB": {"level", "dB", "1", ""}, "lx": {"illuminance", "lx", "1", ""},
}

// toBase are the factors between canonical units that share a dimension.
var toBase = map[string]string{"mV": "1/1000", "mA": "1/1000", "h": "3600"}

// otherUnits are what books print for the units of the table, in lower case
// and as plainUnit has it.
var otherUnits = map[string]string{
	"c": "degC", "celsius": "degC", "f": "degF", "fahrenheit": "degF", "摄氏度": "degC", "度": "kWh for energy, degC for a temperature", "千瓦时": "kWh", "瓦": "W", "千瓦": "kW", "兆瓦": "MW",
	"伏": "V", "千伏": "kV", "安": "A", "毫安": "mA", "赫兹": "Hz", "欧姆": "ohm", "吉焦": "GJ", "帕": "Pa", "千帕": "kPa", "兆帕": "MPa", "吨": "t", "米": "m", "毫米": "mm", "转/分": "rpm",
	"立方米": "m3", "吨/小时": "t/h", "立方米/小时": "m3/h", "小时": "h", "分钟": "min", "秒": "s", "天": "d", "r/min": "rpm", "1/min": "rpm", "min-1": "rpm", "hour": "h", "hours": "h", "hr": "h", "hrs": "h",
	"sec": "s", "second": "s", "seconds": "s", "minute": "min", "minutes": "min", "day": "d", "days": "d", "%rh": "%", "rh": "%", "rh%": "%", "percent": "%", "pct": "%", "cbm": "m3", "cmh": "m3/h",
	"lpm": "L/min", "lps": "L/s", "gpm": "gal/min", "cfm": "ft3/min", "litre": "L", "liter": "L", "lux": "lx", "volt": "V", "volts": "V", "amp": "A", "amps": "A", "ampere": "A", "watt": "W", "watts": "W",
	"vac": "V", "vdc": "V", "m3/hr": "m3/h", "m3/hour": "m3/h", "m3h": "m3/h", "l/hr": "L/h", "t/hr": "t/h", "kgf/cm2": "MPa, with the scale times 0.0980665", "kg/cm2": "MPa, with the scale times 0.0980665",
	"kcal": "kJ, with the scale times 4.1868", "kcal/h": "W, with the scale times 1.163",
}

// plainUnit writes a unit without what is printed and not typed: m³/h, ℃, μS.
var plainUnit = strings.NewReplacer("³", "3", "²", "2", "^", "", "μ", "u", "µ", "u", "Ω", "ohm", "Ω", "ohm", "℃", "degC", "°C", "degC", "℉", "degF", "°F", "degF", "°", "deg", "％", "%", "／", "/", "·", "", " ", "", "“", "", "”", "")

// suggestUnit ends a sentence about a unit that is not in the table. A wrong
// guess would be a wrong factor, so only another spelling is offered.
func suggestUnit(word string) string {
	plain := plainUnit.Replace(word)
	near := otherUnits[strings.ToLower(plain)]
	if _, known := units[plain]; known && plain != "" {
		near = plain
	}
	for _, u := range slices.Sorted(maps.Keys(units)) {
		if near == "" && strings.EqualFold(u, plain) {
			near = u
		}
	}
	if near == "" && len(plain) > 3 { // a letter more or less
		if u := conffile.Nearest(plain, slices.Sorted(maps.Keys(units))); distance(len(u), len(plain)) == 1 && (strings.HasPrefix(plain, u) || strings.HasPrefix(u, plain)) {
			near = u
		}
	}
	if _, known := units[near]; known {
		return `; did you mean "` + near + `"?`
	}
	if near != "" {
		return "; write " + near
	}
	return "; docs/units.md lists what may be written"
}

func canonical(name string) bool { return units[name].canon == name }

// convert returns factor and offset from one source unit to a canonical one
// of the same dimension; ok is false when there is no way. No unit at all
// converts to no unit.
func convert(from, to string) (factor, offset *big.Rat, ok bool) {
	if from == "" && to == "" {
		return big.NewRat(1, 1), new(big.Rat), true
	}
	u, known := units[from]
	if !known || !canonical(to) || u.dim != units[to].dim {
		return nil, nil, false
	}
	factor, offset = rat(u.factor), rat(u.offset)
	if u.canon != to {
		step := new(big.Rat).Quo(base(u.canon), base(to))
		factor.Mul(factor, step)
		offset.Mul(offset, step)
	}
	return factor, offset, true
}

func base(canon string) *big.Rat {
	if f, ok := toBase[canon]; ok {
		return rat(f)
	}
	return big.NewRat(1, 1)
}

// rat reads one of the table's constants; none is 0.
func rat(s string) *big.Rat {
	if s == "" {
		return new(big.Rat)
	}
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		panic("BUG: unit table holds " + s)
	}
	return r
}
