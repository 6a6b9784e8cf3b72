package skiff_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// The code blocks of the README, all of which are compiled or run here.
func readmeBlocks(t *testing.T, language string) []string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	var blocks []string
	for _, m := range regexp.MustCompile("(?s)```([a-z]*)\n(.*?)```").FindAllSubmatch(text, -1) {
		switch string(m[1]) {
		case language:
			blocks = append(blocks, string(m[2]))
		case "go", "sh":
		default:
			t.Errorf("README has a block in %q, which no test compiles or runs", m[1])
		}
	}
	return blocks
}

// fragments is the head of a program of the blocks that are none by themselves.
const fragments = `package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"

	"github.com/skiffdb/skiff"
	"github.com/skiffdb/skiff/skiffprom"
	"github.com/skiffdb/skiff/skifftest"
)

var (
	_ = prometheus.NewRegistry
	_ = skiffprom.New
	_ = errors.Is
	_ = fmt.Println
	_ = log.Println
	_ = time.Now
	_ = leveldb.ErrNotFound
	_ = util.BytesPrefix
	_ = skiff.New
	_ = skifftest.New
	_ = testing.Short
)

func main() {}

func use(...any) {}
`

func TestReadmeGo(t *testing.T) {
	t.Parallel()
	blocks := readmeBlocks(t, "go")
	if len(blocks) == 0 {
		t.Fatal("README has no Go blocks")
	}
	program := fragments
	for i, block := range blocks {
		if strings.HasPrefix(block, "func Test") {
			program += "\n" + block
			continue
		}
		if !strings.HasPrefix(block, "package main") {
			program += fragment(i, block)
			continue
		}
		binary := filepath.Join(t.TempDir(), "program")
		port := freeAddresses(t, 1)[0]
		goCommand(t, strings.ReplaceAll(block, "/ip4/127.0.0.1/tcp/9490", port), "build", "-o", binary)
		run := exec.CommandContext(testContext(t), binary)
		run.Dir = t.TempDir()
		out, err := run.CombinedOutput()
		if err != nil || string(out) != "hello <nil>\n" {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	goCommand(t, program, "build", "-o", os.DevNull)
}

func fragment(i int, block string) string {
	end := "return nil"
	if strings.Contains(block, "value, err :=") {
		end = "use(value)\nreturn err"
	}
	return fmt.Sprintf("\nfunc block%d(ctx context.Context, node *skiff.Node, db *skiff.DB) error {\n%s\n%s\n}\n", i, block, end)
}

// goCommand builds a program as if it were a package of this module.
func goCommand(t *testing.T, program string, args ...string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "main.go")
	if err := os.WriteFile(file, []byte(program), 0o600); err != nil {
		t.Fatal(err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{
		"Replace": {filepath.Join(here, "internal/readme/main.go"): file},
	})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	args = append([]string{args[0], "-overlay", overlayFile}, args[1:]...)
	out, err := exec.CommandContext(testContext(t), "go", append(args, "./internal/readme")...).CombinedOutput()
	if err != nil {
		t.Fatalf("go %v: %v\n%s\n%s", args, err, out, program)
	}
}

// shellScript comes before the README's blocks. await waits until so many nodes
// more have said that they are ready, or waiting.
const shellScript = `set -e
mkfifo log
exec 3<>log
trap 'nodes=$(jobs -p); kill $nodes || true; wait $nodes' EXIT
await() {
	n=0
	while [ $n -lt $1 ]; do
		read -r line <&3
		case $line in "$2 "*) n=$((n + 1)) ;; esac
	done
}
`

// TestReadmeShell runs the shell blocks as one script, but for the two commands
// at the top: the demo runs on its own, and go test is running now.
func TestReadmeShell(t *testing.T) {
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("the README's shell blocks need bash, which is not here")
	}
	blocks := readmeBlocks(t, "sh")
	if len(blocks) != 7 || blocks[0] != "go run ./cmd/skiff demo\n" || blocks[1] != "go test ./...\n" {
		t.Fatalf("README's shell blocks are not the two commands, two of a small cluster and three of a growing one: %q", blocks)
	}
	demo := exec.CommandContext(testContext(t), "go", "run", "./cmd/skiff", "demo")
	demo.Stdin = strings.NewReader("put k v\nget k\n")
	if out, err := demo.Output(); err != nil || string(out) != "v\n" {
		t.Errorf("demo: %v\n%s", err, out)
	}

	dir := t.TempDir()
	if out, err := exec.CommandContext(testContext(t), "go", "build", "-o", dir, "./cmd/skiff").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Run("a small cluster", func(t *testing.T) {
		serve := strings.TrimPrefix(blocks[2], "go install ./cmd/skiff\n")
		serve = strings.ReplaceAll(serve, " &\n", " 2>>log &\n") + "await 3 ready\n"
		out := runReadme(t, dir, serve+blocks[3])
		for _, want := range []string{`"value":"Ada"`, `"value":"Grace"`, "voter"} {
			if !bytes.Contains(out, []byte(want)) {
				t.Errorf("%q is not in the output:\n%s", want, out)
			}
		}
	})
	t.Run("a growing cluster", func(t *testing.T) {
		script := strings.Join(blocks[4:], "echo and then\n")
		script = strings.ReplaceAll(script, " --standby &\n", " --standby 2>>log &\nawait 1 waiting\n")
		script = strings.ReplaceAll(script, " m0 &\n", " m0 2>>log &\nawait 1 ready\n")
		out := runReadme(t, dir, script)
		parts := strings.Split(string(out), "and then\n")
		if len(parts) != 3 || strings.Count(parts[1], " voter") != 5 || strings.Count(parts[2], " voter") != 5 || !strings.HasPrefix(parts[2], "Ada") {
			t.Errorf("%s", out)
		}
	})
}

// runReadme runs a script with ports of its own, in a directory of its own.
func runReadme(t *testing.T, bin, script string) []byte {
	t.Helper()
	script = shellScript + script
	for i, a := range freeAddresses(t, 6) {
		script = strings.ReplaceAll(script, fmt.Sprintf("/ip4/127.0.0.1/tcp/949%d", i), a)
		script = strings.ReplaceAll(script, fmt.Sprintf("/ip4/127.0.0.1/tcp/950%d", i), a)
	}
	out, err := runScript(testContext(t), bin, t.TempDir(), script)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, script, out)
	}
	return out
}

func runScript(ctx context.Context, bin, dir, script string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	return cmd.CombinedOutput()
}
