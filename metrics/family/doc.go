// Package family keeps what is known of metric families: type, help and unit of
// each name, by who tells it.
//
// A Book is the memory of a server. It learns from what this node makes and
// scrapes, from other nodes (Send and Book.Take, every few minutes and when there is
// something new), and from what is written to it by remote write and OTLP. It is
// bounded in uses and bytes; what is not told for an hour is forgotten, and what
// comes while it is full is refused and counted. Nothing of it is on disk: the
// sources tell it again.
//
// Who may see a family is the asker's matter: a Source names the namespace, or
// Everyone for what perch itself makes.
//
// Start reading at Learn in book.go.
package family
