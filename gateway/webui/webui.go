// Package webui is the front end that the hub's console serves: TypeScript
// modules and styles in src, bundled by go generate into dist, which is
// committed and embedded, so that building Luquan needs Go alone. The one
// library, uPlot, stands in vendor/uplot with its licence.
//
// It is plain TypeScript over the DOM, without a framework: what changes here
// are values in cells that stay where they are, and a framework's churn would
// outlive few of the ten years a plant keeps its console.
package webui

import (
	"embed"
	"io/fs"
)

//go:generate go run ./build

//go:embed dist
var dist embed.FS

// FS holds the built files: index.html, app.js, app.css and what they name.
// It is never changed.
var FS = sub()

func sub() fs.FS {
	f, err := fs.Sub(dist, "dist")
	if err != nil {
		panic("BUG: webui: " + err.Error()) // the path is a constant
	}
	return f
}
