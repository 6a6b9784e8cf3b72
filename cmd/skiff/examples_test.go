package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

// asCommand makes the test binary the skiff that the examples run.
const asCommand = "SKIFF_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	os.Exit(m.Run())
}

// TestExamples runs the examples of commands as they stand in the help.
func TestExamples(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("the examples need bash, which is not here")
	}
	bin := t.TempDir()
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(binary, filepath.Join(bin, "skiff")); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		before string
		want   string // pattern of what the database has then
	}{
		"cas": {
			"skiff put light red; skiff put counter 7; date() { echo today; }",
			"counter\t8\nlight\tgreen\nstarted\ttoday\\\\n\n",
		},
		"append": {
			"",
			"event/\\w{20}\tstarted\nevent/\\w{20}\tstopped\n",
		},
		"txn": {
			"skiff put a 100; skiff put stock 3; echo 'put c 1' >transfer.txt",
			"a\t90\nb\t10\nc\t1\nlock\tme\norder/1\tAda\nstock\t2\n",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := single(t)
			cmd, _, err := newRootCmd(processEnv()).Find([]string{name})
			if err != nil {
				t.Fatal(err)
			}
			script := exec.CommandContext(t.Context(), "bash", "-e", "-c", test.before+"\n"+cmd.Example)
			script.Dir = t.TempDir()
			script.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), asCommand+"=1", "SKIFF_NODES="+c.getenv["SKIFF_NODES"])
			if out, err := script.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if got := c.ok(t, "scan"); !regexp.MustCompile("^" + test.want + "$").MatchString(got) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
