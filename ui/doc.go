// Package ui serves the page that is compiled into the binary.
//
// It owns ui/dist, which is built from ui/web by `make ui` and committed; a
// test proves that the two match. It holds no data and asks nobody anything:
// the page talks to the public APIs of the web door like any other client.
//
// Start reading at New in ui.go; the page itself starts in web/src/main.tsx.
package ui
