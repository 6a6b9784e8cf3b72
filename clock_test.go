package skiff_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// losesMonotonic are methods of time.Time that tell the wall clock's time, or give a time
// without the reading of the monotonic clock, by which two times could then no longer be
// compared.
var losesMonotonic = []string{
	"Unix", "UnixMilli", "UnixMicro", "UnixNano", "UTC", "Local", "In", "AddDate", "Date", "Clock",
	"Hour", "Minute", "Second", "Nanosecond", "MarshalBinary", "GobEncode",
}

// The wall clock can be set while nodes run, by hours. Nothing that the library decides
// depends on it: times are those of time.Now, compared with each other.
func TestNothingDependsOnTheWallClock(t *testing.T) {
	t.Parallel()
	files := token.NewFileSet()
	for _, path := range librarySources(t) {
		f, err := parser.ParseFile(files, path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok || !slices.Contains(losesMonotonic, s.Sel.Name) {
				return true
			}
			if pkg, ok := s.X.(*ast.Ident); ok && pkg.Name == "time" {
				return true // time.Second; time.Unix(1, 0) is a deadline that has passed on any clock
			}
			t.Errorf("%s: %s tells the wall clock's time", files.Position(n.Pos()), s.Sel.Name)
			return true
		})
	}
}

// librarySources are the files that a program gets with the library, tests and kits
// left out.
func librarySources(t *testing.T) (paths []string) {
	t.Helper()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path == "." || path == "internal" || strings.HasPrefix(path, "internal/") {
				return nil
			}
			return fs.SkipDir
		}
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			paths = append(paths, path)
		}
		return nil
	})
	if err != nil || len(paths) < 50 {
		t.Fatalf("%d files, %v", len(paths), err)
	}
	return paths
}
