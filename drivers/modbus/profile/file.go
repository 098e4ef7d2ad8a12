package profile

import (
	"cmp"
	"math/big"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
)

// rawProfile is a profile as it is written.
type rawProfile struct {
	ID         string
	Vendor     string
	Model      string
	Kind       string
	Label      telemetry.Label
	Source     Source
	Unproven   []string
	Notes      []string
	Serial     Serial
	Limits     Limits
	UsedAt     []string `yaml:"used_at"`
	Transport  []string
	Book       string // how the maker's book counts, for the reader
	ByteOrder  string `yaml:"byte_order"` // default of the points
	SharesUnit bool   `yaml:"shares_unit"`
	Every      time.Duration
	Params     map[string]rawParam
	Blocks     []rawBlock
	Points     []rawPoint
}

// rawParam is a setting that only the technician on site knows.
type rawParam struct {
	Label   telemetry.Label
	Default conffile.Scalar // "": it must be given
	OneOf   []string        `yaml:"one_of"`
	Note    string
}

// rawBlock is a run of registers that only make sense read together.
type rawBlock struct {
	Table   string
	Address conffile.Scalar
	Count   uint16
}

type rawPoint struct {
	Name       string
	Label      telemetry.Label
	When       map[string]values // the point is there only with these parameters
	Table      string
	Address    conffile.Scalar // a sum, see sum
	DocAddress conffile.Scalar `yaml:"doc_address"`
	UnitOffset conffile.Scalar `yaml:"unit_offset"` // a sum too
	Type       string
	WordOrder  string `yaml:"word_order"`
	ByteOrder  string `yaml:"byte_order"`
	Encoding   string
	Scale      conffile.Scalar
	Offset     conffile.Scalar
	Unit       string
	As         string // canonical unit, where the usual one of the dimension is not meant
	Class      string
	ScaleFrom  *rawScaleFrom `yaml:"scale_from"`
	UnitFrom   *rawUnitFrom  `yaml:"unit_from"`
	Validity   *rawValidity
	Invalid    []Sentinel
	Enum       map[int64]telemetry.Label
	Bits       map[int64]telemetry.Label
	Counter    *bool
	WrapsAt    uint64 `yaml:"wraps_at"`

	FrozenAfter time.Duration `yaml:"frozen_after"`

	Range  *rawRange
	Every  time.Duration
	Access string
	Note   string

	at conffile.Path // where it stands in the document that is being read
}

type rawScaleFrom struct {
	Table   string
	Address conffile.Scalar
	Rule    string
}

type rawUnitFrom struct {
	Table   string
	Address conffile.Scalar
	Units   map[int64]string
}

type rawValidity struct {
	Table      string
	Address    conffile.Scalar
	Mask       uint16
	Good       []int64
	OverRange  []int64 `yaml:"over_range"`
	UnderRange []int64 `yaml:"under_range"`
}

// rawRange is in the point's source unit, as the maker's book has it.
type rawRange struct{ Min, Max conffile.Scalar }

// values is one value, or a list of them.
type values []string

// UnmarshalScalar reads the short form, one value.
func (v *values) UnmarshalScalar(text string) error {
	*v = values{text}
	return nil
}

var reference = regexp.MustCompile(`\$\{([^}]*)\}`)

// fill replaces ${name} in every text of p, its register descriptions
// included, and returns the names that no parameter has.
func (p *rawPoint) fill(params map[string]string) (unknown []string) {
	return fill(reflect.ValueOf(p).Elem(), params)
}

// names returns the key of p in which ${param} stands first; none when it is
// nowhere.
func (p *rawPoint) names(param string) []any {
	v := reflect.ValueOf(p).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !f.IsExported() {
			continue
		}
		c := reflect.New(f.Type).Elem()
		c.Set(v.Field(i))
		if slices.Contains(fill(c, nil), param) { // without parameters all are unknown
			return []any{cmp.Or(f.Tag.Get("yaml"), strings.ToLower(f.Name))}
		}
	}
	return nil
}

// fill is rawPoint.fill of any value that can be set.
func fill(of reflect.Value, params map[string]string) (unknown []string) {
	var walk func(v reflect.Value)
	walk = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				c := reflect.New(v.Type().Elem()) // the original belongs to the library
				c.Elem().Set(v.Elem())
				walk(c.Elem())
				v.Set(c)
			}
		case reflect.Struct:
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() {
					walk(v.Field(i))
				}
			}
		case reflect.Slice:
			if v.Len() > 0 {
				c := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
				reflect.Copy(c, v)
				for i := range c.Len() {
					walk(c.Index(i))
				}
				v.Set(c)
			}
		case reflect.Map:
			if v.Len() > 0 {
				c := reflect.MakeMapWithSize(v.Type(), v.Len())
				for _, k := range v.MapKeys() {
					e := reflect.New(v.Type().Elem()).Elem()
					e.Set(v.MapIndex(k))
					walk(e)
					c.SetMapIndex(k, e)
				}
				v.Set(c)
			}
		case reflect.String:
			if s := v.String(); strings.Contains(s, "${") {
				v.SetString(reference.ReplaceAllStringFunc(s, func(ref string) string {
					name := ref[2 : len(ref)-1]
					val, ok := params[name]
					if !ok {
						unknown = append(unknown, name)
					}
					return val
				}))
			}
		}
	}
	walk(of)
	return unknown
}

// decimal is what a factor may look like. It bounds what big.Rat is given.
var decimal = regexp.MustCompile(`^[+-]?[0-9]{1,20}(\.[0-9]{0,30})?([eE][+-]?[0-9]{1,2})?$`)

// mostFactors bounds a product of them: two ratios, a step and a divisor.
const mostFactors = 6

// parseRat reads a decimal number, a fraction (1/512), or a product of several
// (40*100/10); none is what stands for nothing.
func parseRat(s conffile.Scalar, none *big.Rat) (*big.Rat, bool) {
	if s == "" {
		return none, true
	}
	out, divide := big.NewRat(1, 1), false
	rest := string(s)
	for range mostFactors {
		end := strings.IndexAny(rest, "*/")
		text := rest
		if end >= 0 {
			text = rest[:end]
		}
		text = strings.TrimSpace(text)
		if !decimal.MatchString(text) {
			return none, false
		}
		f, ok := new(big.Rat).SetString(text)
		if !ok || divide && f.Sign() == 0 {
			return none, false
		}
		if divide {
			f.Inv(f)
		}
		out.Mul(out, f)
		if end < 0 {
			return out, true
		}
		divide, rest = rest[end] == '/', rest[end+1:]
	}
	return none, false
}
