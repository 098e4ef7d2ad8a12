package plant

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"luquan/drivers/modbus/profile"
	"luquan/gateway/telemetry"
	"luquan/internal/conffile"
	"luquan/internal/plant/physics"
)

// siteFile is plant.yaml.
type siteFile struct {
	Site  string
	Label telemetry.Label
	Model string // the physics: see package physics
	Buses []busFile
}

type busFile struct {
	Name string
	RTU  *struct {
		Baud   int
		Parity string
	} `yaml:"rtu"`
	TCP     *struct{ Port int } `yaml:"tcp"`
	Devices []deviceFile
}

// deviceFile is one device. From is a prefix: a point that Feeds does not name
// shows the quantity <from>.<point> where there is one. A feed is the name of
// a quantity, a number (canonical unit), the text of a text point, or none for
// the model's "not available". Points that nothing feeds are not available,
// and where the model cannot say so their registers do not exist.
type deviceFile struct {
	Name     string
	Profile  profile.Ref
	Unit     int
	From     string
	Feeds    map[string]conffile.Scalar
	Settings []setting // raw registers
	Hole     uint16    // what a register that does not exist reads as, where the model answers it
}

// load reads plant.yaml into p.
func (p *Plant) load(fsys fs.FS, siteDir string, o Options) error {
	lib, err := o.Library, error(nil)
	if lib == nil {
		lib, err = profile.Load(fsys, "devices")
	}
	if err != nil {
		return fmt.Errorf("read the device profiles: %w", err)
	}
	file := path.Join(siteDir, "plant.yaml")
	data, err := fs.ReadFile(fsys, file)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no site %q; the sites are %s", path.Base(siteDir), strings.Join(sites(fsys, path.Dir(siteDir)), ", "))
	}
	if err != nil {
		return fmt.Errorf("read the site: %w", err)
	}
	var s siteFile
	doc, _ := conffile.Parse(file, data, &s)
	p.site, p.label, p.modelName = s.Site, s.Label, s.Model
	if !telemetry.ValidName(s.Site) {
		doc.Errorf(conffile.Path{"site"}, "%q cannot name a site", s.Site)
	}
	if p.world, err = physics.New(s.Model, o.Seed, p.hour()); err != nil {
		doc.Fail(conffile.Path{"model"}, err)
		return doc.Err()
	}
	port := o.PortBase
	for i, b := range s.Buses {
		at := conffile.Path{"buses", i}
		if !telemetry.ValidName(b.Name) || p.bus(b.Name) != nil {
			doc.Errorf(at.With("name"), "%q cannot name this bus: a name is a-z, 0-9 and -, and unique", b.Name)
		}
		devices, units := p.loadDevices(doc, at, lib, b)
		switch {
		case (b.RTU == nil) == (b.TCP == nil):
			doc.Errorf(at, "bus %q needs one of rtu and tcp", b.Name)
		case b.TCP != nil:
			use := port
			if port > 0 {
				port++
			} else if port == SitePorts {
				use = b.TCP.Port
			}
			p.buses = append(p.buses, &tcpBus{p: p, name: b.Name, addr: listenAddr(o.Listen, use), devices: units, order: devices})
		default:
			if b.RTU.Baud < 300 || b.RTU.Baud > 921600 {
				doc.Errorf(at.With("rtu", "baud"), "baud is %d; choose between 300 and 921600", b.RTU.Baud)
			}
			if !slices.Contains([]string{"none", "even", "odd"}, b.RTU.Parity) {
				doc.Errorf(at.With("rtu", "parity"), "parity is %q; it is none, even or odd", b.RTU.Parity)
			}
			p.buses = append(p.buses, &rtuBus{p: p, name: b.Name, baud: max(300, b.RTU.Baud), parity: b.RTU.Parity, devices: units, order: devices})
		}
	}
	return doc.Err()
}

// sites lists the folders of dir that hold a plant.yaml.
func sites(fsys fs.FS, dir string) []string {
	found, err := fs.Glob(fsys, path.Join(dir, "*", "plant.yaml"))
	if err != nil {
		panic("BUG: " + err.Error())
	}
	for i, f := range found {
		found[i] = path.Base(path.Dir(f))
	}
	return found
}

func (p *Plant) loadDevices(doc *conffile.Doc, at conffile.Path, lib *profile.Library, b busFile) ([]*device, units) {
	var list []*device
	byUnit := units{}
	for j, df := range b.Devices {
		at := at.With("devices", j)
		if !telemetry.ValidName(df.Name) || p.byName[df.Name] != nil {
			doc.Errorf(at.With("name"), "%q cannot name this device: a name is a-z, 0-9 and -, and unique in its site", df.Name)
		}
		if df.Unit < 1 || df.Unit > 247 {
			doc.Errorf(at.With("unit"), "unit is %d; choose 1 to 247", df.Unit)
			continue
		}
		prof := df.Profile.Resolve(lib, doc, at.With("profile"))
		if prof == nil {
			continue
		}
		d := &device{name: df.Name, bus: b.Name, unit: byte(df.Unit), profile: prof, settings: df.Settings, hole: df.Hole}
		p.loadFeeds(doc, at, d, df)
		d.split()
		if other := byUnit.taken(d); other != nil {
			doc.Errorf(at.With("unit"), "unit %d is already taken by %q", df.Unit, other.name)
			continue
		}
		for k, s := range df.Settings {
			if _, ok := tables[s.Table]; !ok {
				doc.Errorf(at.With("settings", k, "table"), "table is %q; it is coil, discrete, holding or input", s.Table)
			}
		}
		list = append(list, d)
		byUnit.add(d)
		p.devices = append(p.devices, d)
		p.byName[d.name] = d
	}
	return list, byUnit
}

func (p *Plant) loadFeeds(doc *conffile.Doc, at conffile.Path, d *device, df deviceFile) {
	for name := range df.Feeds {
		if _, ok := d.profile.Point(name); !ok {
			doc.Errorf(at.With("feeds", name), "profile %s has no point %q", d.profile.ID, name)
		}
	}
	for i := range d.profile.Points {
		pt := &d.profile.Points[i]
		if pt.Access == "wo" {
			continue // nothing to read there
		}
		text, given := df.Feeds[pt.Name]
		if _, _, ok := p.world.Quantity(df.From + "." + pt.Name); !given && ok {
			text, given = conffile.Scalar(df.From+"."+pt.Name), true
		}
		f, err := p.feed(pt, string(text), given)
		if err != nil {
			doc.Fail(at.With("feeds", pt.Name), err)
			continue
		}
		if f != nil {
			f.view = slices.ContainsFunc(d.feeds, func(g feed) bool {
				return g.point.UnitOffset == pt.UnitOffset && g.point.Table == pt.Table && g.point.Address == pt.Address &&
					!(g.point.Encoding == profile.BitField && pt.Encoding == profile.BitField) // each has bits of its own
			})
			d.feeds = append(d.feeds, *f)
		}
	}
}

// feed reads what feeds a point; nil when nothing does and the model cannot say so.
func (p *Plant) feed(pt *profile.Point, text string, given bool) (*feed, error) {
	_, sayable := notAvailable(pt)
	f := &feed{point: pt}
	number, err := strconv.ParseFloat(text, 64)
	switch {
	case !given && !sayable:
		return nil, nil
	case !given:
		f.absent = true
	case text == "none" && !sayable:
		return nil, fmt.Errorf("the model has no raw value by which %s is not available; feed it, or leave it out", pt.Name)
	case text == "none":
		f.absent = true
	case pt.Type == profile.Text:
		f.text = text
	case err == nil && !math.IsInf(number, 0) && !math.IsNaN(number):
		f.constant = number
	default:
		_, unit, ok := p.world.Quantity(text)
		if !ok {
			return nil, fmt.Errorf("model %s has no quantity %q; it has %s", p.modelName, text, strings.Join(p.world.Names(), ", "))
		}
		if unit != pt.Unit {
			return nil, fmt.Errorf("quantity %s is in %q, and %s in %q", text, unit, pt.Name, pt.Unit)
		}
		f.quantity = text
	}
	return f, nil
}
