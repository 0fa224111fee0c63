package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"
)

// BuildVersion is set by the linker (-X perch/cmd/perch/cli.BuildVersion).
var BuildVersion = "dev"

func uiCommand(s Streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "ui",
		Short: "Print a fresh one-time link to the page (good for 10 minutes)",
		Args:  exactly(0, "no argument"),
	}
	a := newAccess(c.PersistentFlags())
	c.RunE = func(c *cobra.Command, _ []string) error {
		w, err := a.web(c.Context())
		if err != nil {
			return err
		}
		u := w.base.JoinPath("/ui/api/v1/code")
		req, err := http.NewRequestWithContext(c.Context(), http.MethodPost, u.String(), bytes.NewReader(nil))
		if err != nil {
			return fmt.Errorf("ask for login code: %w", err)
		}
		resp, err := w.client.Do(req)
		if err != nil {
			return fmt.Errorf("ask for login code: %w", err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return answerError(resp)
		}
		var got struct{ Code string }
		if err := json.NewDecoder(resp.Body).Decode(&got); err != nil {
			return fmt.Errorf("read login code: %w", err)
		}
		fmt.Fprintf(s.Out, "%s/#login=%s\n", w.base, got.Code)
		return nil
	}
	return c
}

func versionCommand(s Streams) *cobra.Command {
	c := &cobra.Command{
		Use:   "version",
		Short: "Show the version of perch and of the cluster's API",
		Args:  exactly(0, "no argument"),
	}
	a := newAccess(c.PersistentFlags())
	var client bool
	c.Flags().BoolVar(&client, "client", false, "do not ask the cluster")
	c.RunE = func(*cobra.Command, []string) error {
		fmt.Fprintln(s.Out, "perch", BuildVersion)
		if client {
			return nil
		}
		d, err := a.flags.ToDiscoveryClient()
		if err != nil {
			return fmt.Errorf("reach cluster: %w", err)
		}
		v, err := d.ServerVersion()
		if err != nil {
			return fmt.Errorf("reach cluster: %w", err)
		}
		fmt.Fprintln(s.Out, "Kubernetes API", v.GitVersion)
		return nil
	}
	return c
}
