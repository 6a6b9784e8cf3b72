package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
)

// binary is where the command is, once it is built.
var binary struct {
	sync.Mutex
	dir string
}

// Binary is the path of the command skiff, which is built at the first call, from the
// sources around this module, with the race detector if this program has it.
func Binary() (string, error) {
	binary.Lock()
	defer binary.Unlock()
	if binary.dir == "" {
		dir, err := os.MkdirTemp("", "skiff-test-")
		if err != nil {
			return "", fmt.Errorf("build skiff: %w", err)
		}
		if err := build(filepath.Join(dir, "skiff")); err != nil {
			return "", errors.Join(err, os.RemoveAll(dir))
		}
		binary.dir = dir
	}
	return filepath.Join(binary.dir, "skiff"), nil
}

// RemoveBinary removes what Binary has built.
func RemoveBinary() error {
	binary.Lock()
	defer binary.Unlock()
	dir := binary.dir
	binary.dir = ""
	if dir == "" {
		return nil
	}
	return os.RemoveAll(dir)
}

func build(path string) error {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/skiffdb/skiff").Output()
	if err != nil {
		return fmt.Errorf("look for the sources of skiff: %w", err)
	}
	cmd := exec.Command("go", "build", "-o", path, "./cmd/skiff")
	if Race {
		cmd = exec.Command("go", "build", "-race", "-o", path, "./cmd/skiff")
	}
	cmd.Dir = strings.TrimSpace(string(root))
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build skiff: %w: %s", err, out)
	}
	return nil
}
