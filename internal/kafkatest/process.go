package kafkatest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"twinegress/internal/procgroup"
)

// served is the last line that a node logs while starting.
const served = "Kafka Server started"

// process is a broker's process.
type process struct {
	name   string
	cmd    *exec.Cmd
	log    string
	serves chan struct{} // closed when it serves
	ended  chan struct{}
}

// java returns the command for one of Kafka's main classes.
func (c *Cluster) java(ctx context.Context, n *node, args ...string) (*exec.Cmd, error) {
	jars, err := Jars()
	if err != nil {
		return nil, err
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, errors.New("there is no java: Kafka needs Java 17 or newer (Debian: apt-get install openjdk-17-jre-headless)")
	}
	heap := strconv.Itoa(c.cfg.HeapMB) + "m"
	cmd := exec.CommandContext(ctx, java, append([]string{
		"-Xms" + heap, "-Xmx" + heap, "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto",
		"-Djava.awt.headless=true", "-Dlog4j2.configurationFile=" + n.file("log4j2.xml"),
		"-cp", filepath.Join(jars, "*"),
	}, args...)...)
	cmd.Dir = n.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	return cmd, nil
}

// format creates a node's data directory, unless it exists.
func (c *Cluster) format(ctx context.Context, n *node) error {
	args := append([]string{
		"kafka.tools.StorageTool", "format", "--ignore-formatted",
		"-t", c.id, "-c", n.file("server.properties"),
	}, c.cfg.Format...)
	cmd, err := c.java(ctx, n, args...)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := c.starter.Start(cmd); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("kafka: formatting the data directory of node %d: %w\n%s", n.id, err, out.Bytes())
	}
	return nil
}

// start starts a node's process; await waits until it serves.
func (c *Cluster) start(ctx context.Context, n *node) error {
	// The process runs until the cluster is closed, not until ctx ends.
	cmd, err := c.java(context.WithoutCancel(ctx), n, "kafka.Kafka", n.file("server.properties"))
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	cmd.Stderr = cmd.Stdout
	p := &process{
		name: "kafka node " + strconv.Itoa(n.id), cmd: cmd, log: n.file("server.log"),
		serves: make(chan struct{}), ended: make(chan struct{}),
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if err := c.starter.Start(cmd); err != nil {
		return errors.Join(err, log.Close())
	}
	n.process = p
	c.done.Go(func() {
		defer close(p.ended)
		var once sync.Once
		lines := bufio.NewReader(out)
		for {
			line, err := lines.ReadString('\n')
			_, _ = log.WriteString(line) // no test depends on the log
			if strings.Contains(line, served) {
				once.Do(func() { close(p.serves) })
			}
			if err != nil {
				break
			}
		}
		_ = log.Close()
		_ = cmd.Wait() // the log has the cause of its end
	})
	return nil
}

// await blocks until the node serves.
func (p *process) await(ctx context.Context) error {
	var err error
	select {
	case <-p.serves:
		return nil
	case <-p.ended:
		err = fmt.Errorf("%s ended while starting", p.name)
	case <-ctx.Done():
		err = fmt.Errorf("%s does not serve yet: %w", p.name, context.Cause(ctx))
	}
	log, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return fmt.Errorf("%w; the end of %s:\n%s", err, p.log, strings.Join(lines[max(0, len(lines)-20):], "\n"))
}

// signal sends a signal to the process and to its children.
func (p *process) signal(s syscall.Signal) error {
	if err := procgroup.Signal(p.cmd, s); err != nil {
		return fmt.Errorf("%s: %v: %w", p.name, s, err)
	}
	return nil
}

// Jars returns the directory with the jars of the Kafka version that
// tools/kafka/pom.xml names.
func Jars() (string, error) {
	root, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(root, "tools", "kafka", "pom.xml")); err == nil {
			break
		}
		up := filepath.Dir(root)
		if up == root {
			return "", errors.New("kafka: not inside this repository: there is no tools/kafka/pom.xml")
		}
		root = up
	}
	b, err := os.ReadFile(filepath.Join(root, "tools", "kafka", "pom.xml"))
	if err != nil {
		return "", err
	}
	var pom struct {
		Version string `xml:"properties>kafka.version"`
	}
	if err := xml.Unmarshal(b, &pom); err != nil {
		return "", fmt.Errorf("tools/kafka/pom.xml: %w", err)
	}
	dir := filepath.Join(root, "bin", "kafka-"+pom.Version, "libs")
	if _, err := os.Stat(dir); err != nil {
		return "", fmt.Errorf("kafka %s is not here: `make kafka-jars` fetches it (Maven): %w", pom.Version, err)
	}
	return dir, nil
}
