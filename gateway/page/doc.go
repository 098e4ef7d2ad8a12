// Package page brings alarms to people. Its file, page.yaml, says which
// channels there are and who is told by which:
//
//	channels:
//	  control-room: {webhook: {url: "https://...", secret_file: hook.key}}
//	rotas:
//	  heating: {notify: [control-room]}
//
// A rule names a rota; Plan.Pages turns the events of the alarm engine into
// pages, one for each channel. The caller stores pages in the same transaction
// as the events (hub/journal); the Pager takes them from there, sends them and
// writes down every attempt. How a message travels is a Channel's business,
// one package each below this one.
package page
