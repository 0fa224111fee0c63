// Package evidence gives every alert what a person would look up first: links
// into the page at the alert's moment, the last log lines, events and changes of
// the object, current values. They are annotations whose names begin with
// perch_, so webhooks keep Alertmanager's shape.
//
// It stands between those who tell alerts, rules (Send) and callers of the API
// (Deliver), and the router. It owns which alerts are firing
// as far as it has seen, tells each beginning and end once (Transition), and
// never decides whether an alert fires. Looking things up has a deadline and a
// size: an alert goes out with what was found by then, and the order of what is
// told of one alert stays.
//
// Start reading at Run in courier.go; what is asked is decide.go.
package evidence
