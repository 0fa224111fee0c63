// Package amconfig reads AlertmanagerConfig objects: the routes, receivers and
// inhibition of a namespace. Text writes one in Alertmanager's own format, with
// the values of the Secrets and ConfigMaps that it names, for route.Merge, which
// keeps it inside its namespace. Check says what is wrong with one before it is
// stored, with the path of the field.
//
// It reads no Secret itself; the caller's function does, for keys of the object's
// own namespace only.
//
// Start reading at Text in object.go.
package amconfig
