// Package page looks at perch's page as users do: in Chromium, on a real
// cluster with an application under load.
//
// The Go test starts the cluster (or takes the one PERCH_PAGE_KUBECONFIG names)
// and the application; page.test.mjs drives the browser and asserts. It needs
// root, PERCH (path of the binary), node, npm and Chromium; no browser is
// downloaded. Screenshots go to out/page. Start reading at TestPage.
package page
