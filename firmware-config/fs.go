// Package firmwareconfig is the data of Luquan, embedded: what a technician
// would otherwise have to find in manuals. devices/ holds the register maps of
// device models (drivers/modbus/profile reads them), one file a model, each
// fact with its source; sites/ holds whole example sites: the simulated plant,
// its boards, alarm rules and a fault script; left-out.yaml says what of the
// sources is in no profile, and why. It holds no code.
package firmwareconfig

import "embed"

// FS holds the files under their paths here, such as devices/xy-md02.yaml.
//
//go:embed devices sites left-out.yaml
var FS embed.FS
