package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	firmwareconfig "luquan/firmware-config"
	"luquan/gateway/edge"
	"luquan/gateway/hub"
	"luquan/internal/plant"
)

// incident is what the demo breaks, and mends again, when no day is played.
type incident struct {
	site  string // folder in firmware-config/sites
	what  string
	fault plant.Fault // At and For are those of every incident
}

const (
	breaks = 15 * time.Second
	broken = 15 * time.Second
)

// incidents are quick ones, told within seconds; the first of a site that runs
// is the one that happens.
var incidents = []incident{
	{"heating-plant", "the boilers fail, the supply temperature falls to 55 degC / 锅炉故障，供水温度降到 55 ℃",
		plant.Fault{Do: "set", Quantity: "supply_temp", Value: 55}},
	{"substation", "the breaker of feeder 2 trips / 2 号馈线断路器跳闸", plant.Fault{Do: "set", Quantity: "feeder_2.closed", Value: 0}},
	{"computing-centre", "the mains fall to 160 V, the UPS take over / 市电降到 160 V，UPS 转电池供电",
		plant.Fault{Do: "set", Quantity: "mains", Value: 160}},
	{"sewage-works", "the wet well stands at 3.3 m / 集水井液位达到 3.3 m", plant.Fault{Do: "set", Quantity: "well_level", Value: 3.3}},
	{"gas-storage", "a gas detector fails / 燃气探测器故障", plant.Fault{Do: "set", Quantity: "gas_detector_1.fault_code", Value: 21}},
	{"cold-chain", "a compressor of the low-temperature rack trips / 低温机组压缩机跳闸", plant.Fault{Do: "set", Quantity: "rack_lt.trip_1", Value: 1}},
}

// choose sets the sites that run: those named, or all that are built in.
func (d *demo) choose() error {
	all := plant.Sites()
	d.sites = all
	if len(d.names) > 0 {
		d.sites = nil
	}
	for _, n := range d.names {
		if !slices.Contains(all, n) {
			return fmt.Errorf("there is no site %q; --site takes some of %s, with commas between", n, strings.Join(all, ","))
		}
		if !slices.Contains(d.sites, n) {
			d.sites = append(d.sites, n)
		}
	}
	if d.speed != 1 && !d.day {
		return fmt.Errorf("--speed %v is the speed of the day; add --day", d.speed)
	}
	return nil
}

// cards are those of the overview whose sites run, in the order of hub.yaml.
func cards(all []hub.OverviewConfig, plants map[string]*plant.Plant) (list []hub.OverviewConfig) {
	for _, c := range all {
		for _, p := range plants {
			if p.Site() == c.Site {
				list = append(list, c)
			}
		}
	}
	return list
}

// played gives a plant its day.
func (d *demo) played(site string, o *plant.Options) (err error) {
	if !d.day {
		return nil
	}
	o.Speed = d.speed
	o.OnIncident = func(i plant.Incident, begins bool) {
		word := "故障 fault"
		if !begins {
			word = "排除 mended"
		}
		d.say("%s %s: %s %s / %s", i.At, word, site, i.Label.Zh, i.Label.En)
	}
	o.Day, err = plant.LoadDay(firmwareconfig.FS, path.Join("sites", site))
	return err
}

// tell says what runs.
func (d *demo) tell(plants map[string]*plant.Plant, boards []edge.Config) {
	d.say("%d 个现场 sites:", len(d.sites))
	for _, s := range d.sites {
		p := plants[s]
		gateways, devices := 0, 0
		for _, b := range boards {
			if b.Site == p.Site() {
				gateways++
			}
		}
		buses := p.Buses()
		for _, b := range buses {
			devices += len(b.Devices)
		}
		d.say("  %s: %s %s — %d 网关 gateways, %d 总线 buses, %d 设备 devices", p.Site(), p.Label().Zh, p.Label().En, gateways, len(buses), devices)
	}
}

// schedule lets something go wrong, and tells when it comes and goes.
func (d *demo) schedule(ctx context.Context, plants map[string]*plant.Plant) error {
	if d.day {
		d.say("每个现场按 %v 倍速演示一天的故障 each site plays its day of incidents, %v times as fast", d.speed, d.speed)
		return nil
	}
	for _, i := range incidents {
		p := plants[i.site]
		if p == nil {
			continue
		}
		f := i.fault
		f.At, f.For = breaks, broken
		if _, err := p.Fault(f); err != nil {
			return err
		}
		say := func(at time.Duration, text string) {
			timer := time.AfterFunc(at, func() { d.say("%s %s", at, text) })
			context.AfterFunc(ctx, func() { timer.Stop() })
		}
		say(breaks, "故障 fault: "+i.what)
		say(breaks+broken, "排除 mended")
		d.say("%v 后制造一次故障，%v 后排除 something breaks at %v and is mended at %v", breaks, breaks+broken, breaks, breaks+broken)
		return nil
	}
	d.say("没有故障演示 nothing is broken on purpose; --day plays the site's day of incidents")
	return nil
}
