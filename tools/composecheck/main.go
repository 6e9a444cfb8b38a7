// Command composecheck reads Compose files the way `docker compose config`
// does, without a Docker engine: against the Compose specification's schema,
// with their variables filled in and references between services followed. On
// top of that it looks for what would only fail once the containers start.
//
//	composecheck docker-compose.yml …
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/sirupsen/logrus"
)

// eula must come from whoever runs the containers: never from the file.
const eula = "ACCEPT_EULA"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: composecheck FILE…")
		os.Exit(2)
	}
	logrus.SetOutput(io.Discard) // compose-go's warnings are about variables that aren't set
	failed := false
	for _, file := range os.Args[1:] {
		services, err := check(file)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", file, err)
			failed = true
			continue
		}
		fmt.Printf("%s: ok, %d services\n", file, services)
	}
	if failed {
		os.Exit(1)
	}
}

func check(file string) (services int, err error) {
	project, err := load(file, eula+"=Y")
	if err != nil {
		return 0, err
	}
	var errs []error
	usesEULA := func(s types.ServiceConfig) bool {
		_, ok := s.Environment[eula]
		return ok
	}
	if _, err := load(file); err == nil && slices.ContainsFunc(slices.Collect(maps.Values(project.Services)), usesEULA) {
		errs = append(errs, fmt.Errorf("it loads without %s: whoever runs it has to accept the licences themselves", eula))
	}
	for _, name := range project.ServiceNames() {
		errs = append(errs, checkService(project, project.Services[name])...)
	}
	return len(project.Services), errors.Join(errs...)
}

func load(file string, env ...string) (*types.Project, error) {
	options, err := cli.NewProjectOptions([]string{file},
		cli.WithWorkingDirectory(filepath.Dir(file)),
		cli.WithEnv(env), // and not the caller's, nor .env: the same result everywhere
		cli.WithProfiles([]string{"*"}),
		cli.WithInterpolation(true),
		cli.WithNormalization(true),
		cli.WithConsistency(true),
		cli.WithResolvedPaths(true))
	if err != nil {
		return nil, err
	}
	return options.LoadProject(context.Background())
}

// checkService finds what the schema doesn't.
func checkService(p *types.Project, s types.ServiceConfig) (errs []error) {
	add := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("service %s: %w", s.Name, fmt.Errorf(format, args...)))
	}
	if s.Build == nil && !pinned(s.Image) {
		add("image %q has no fixed tag", s.Image)
	}
	if b := s.Build; b != nil {
		if _, err := os.Stat(filepath.Join(b.Context, b.Dockerfile)); err != nil {
			add("build: %w", err)
		}
	}
	for _, v := range s.Volumes {
		if v.Type != types.VolumeTypeBind {
			continue
		}
		if _, err := os.Stat(v.Source); err != nil {
			add("volume: %w", err)
		}
	}
	for on, d := range s.DependsOn {
		dep := p.Services[on]
		if d.Condition == types.ServiceConditionHealthy && (dep.HealthCheck == nil || dep.HealthCheck.Disable) {
			add("waits for %s to be healthy, which has no healthcheck here", on)
		}
		if d.Condition == types.ServiceConditionCompletedSuccessfully && slices.Contains([]string{types.RestartPolicyAlways, types.RestartPolicyUnlessStopped}, dep.Restart) {
			add("waits for %s to complete, which is always restarted", on)
		}
	}
	for _, port := range s.Ports {
		if port.Published != "" && !strings.HasPrefix(port.HostIP, "127.") {
			add("port %s is open to the network: publish it on 127.0.0.1", port.Published)
		}
	}
	return errs
}

// pinned reports whether an image's name has a tag that isn't a moving one, or a digest.
func pinned(image string) bool {
	if strings.Contains(image, "@sha256:") {
		return true
	}
	_, tag, ok := strings.Cut(image[strings.LastIndex(image, "/")+1:], ":")
	return ok && tag != "latest"
}
