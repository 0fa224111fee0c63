package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
)

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stdout, nil))
	if err := run(log, os.Args[1:]); err != nil {
		log.Error("demo ended", "err", err.Error())
		os.Exit(1)
	}
}

func run(log *slog.Logger, args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if len(args) == 0 {
		return fmt.Errorf("say what to be: web, load, receive, count, eat, burn, get or post")
	}
	fs := flag.NewFlagSet(args[0], flag.ContinueOnError)
	switch args[0] {
	case "web":
		listen := fs.String("listen", ":8080", "address of the shop")
		work := fs.Int("work", 200, "kilobytes hashed for each order: what an order costs")
		if err := fs.Parse(args[1:]); err != nil {
			return fmt.Errorf("read flags: %w", err)
		}
		return serve(ctx, log, *listen, newShop(log, *work).handler())
	case "load":
		target := fs.String("target", "http://web:8080/order", "URL that takes orders")
		rate := fs.Float64("rate", 5, "orders a second")
		burst := fs.Float64("burst", 0, "orders a second while the file named by -burst-file exists")
		burstFile := fs.String("burst-file", "/tmp/burst", "see -burst")
		if err := fs.Parse(args[1:]); err != nil {
			return fmt.Errorf("read flags: %w", err)
		}
		return load(ctx, log, *target, *rate, *burst, *burstFile)
	case "receive":
		listen := fs.String("listen", ":8080", "address that takes webhooks")
		if err := fs.Parse(args[1:]); err != nil {
			return fmt.Errorf("read flags: %w", err)
		}
		return serve(ctx, log, *listen, newInbox(log))
	case "count":
		n := fs.Int("n", 0, "how many numbered lines to print; 0: without end")
		rate := fs.Float64("rate", 0, "lines a second; 0: as fast as they are taken")
		stay := fs.Bool("stay", false, "stay after the last line")
		if err := fs.Parse(args[1:]); err != nil {
			return fmt.Errorf("read flags: %w", err)
		}
		return count(ctx, os.Stdout, *n, *rate, *stay)
	case "eat":
		mb := fs.Int("mb", 64, "megabytes of memory to take and keep")
		if err := fs.Parse(args[1:]); err != nil {
			return fmt.Errorf("read flags: %w", err)
		}
		eat(ctx, log, *mb)
		return nil
	case "burn":
		burn(ctx)
		return nil
	case "get", "post":
		if len(args) != 2 {
			return fmt.Errorf("give one URL")
		}
		return ask(ctx, os.Stdout, strings.ToUpper(args[0]), args[1])
	default:
		return fmt.Errorf("%q is nothing to be: choose web, load, receive, count, eat, burn, get or post", args[0])
	}
}
