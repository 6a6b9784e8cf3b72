package wire

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

var testCluster = ClusterID{0: 0xab, 15: 0x01}

func TestClusterID(t *testing.T) {
	if !(ClusterID{}).IsZero() || testCluster.IsZero() {
		t.Error("only the zero id may be zero")
	}
	if got, want := testCluster.String(), "ab000000000000000000000000000001"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
}

func TestPrefaceRoundTrip(t *testing.T) {
	for _, want := range []Preface{
		{},
		{Kind: KindClient, To: "/dns4/db.example/tcp/9490"},
		{Kind: KindRaft, ClusterID: testCluster, From: "/ip4/127.0.0.1/tcp/1", To: "/unix/tmp/skiff"},
		{Kind: KindRaft, Identity: Identity{Incarnation: Incarnation{0: 1, 15: 2}, Term: 3, Index: 1 << 40}},
		{Kind: 200, From: strings.Repeat("f", maxStringLen), To: strings.Repeat("t", maxStringLen)},
	} {
		var w countingWriter
		if err := WritePreface(&w, want); err != nil {
			t.Fatal(err)
		}
		if w.writes != 1 {
			t.Errorf("%d writes, want 1", w.writes)
		}
		w.WriteString("next")
		got, err := ReadPreface(&w.Buffer)
		if err != nil || got != want {
			t.Errorf("ReadPreface = %+v, %v; want %+v", got, err, want)
		}
		if rest := w.String(); rest != "next" {
			t.Errorf("ReadPreface left %q, want %q", rest, "next")
		}
	}
}

func TestPrefaceReplyRoundTrip(t *testing.T) {
	for _, want := range []PrefaceReply{
		{},
		{Refused: RefusedCluster, ClusterID: testCluster, Message: "this is another cluster"},
		{Refused: 200},
		{Identity: Identity{Incarnation: Incarnation{0: 1, 15: 2}, Term: 3, Index: 1 << 40}},
	} {
		var w countingWriter
		if err := WritePrefaceReply(&w, want); err != nil {
			t.Fatal(err)
		}
		if w.writes != 1 {
			t.Errorf("%d writes, want 1", w.writes)
		}
		w.WriteString("next")
		got, err := ReadPrefaceReply(&w.Buffer)
		if err != nil || got != want {
			t.Errorf("ReadPrefaceReply = %+v, %v; want %+v", got, err, want)
		}
		if rest := w.String(); rest != "next" {
			t.Errorf("ReadPrefaceReply left %q, want %q", rest, "next")
		}
	}
}

func TestWritePrefaceRefusesLongAddress(t *testing.T) {
	var w countingWriter
	if err := WritePreface(&w, Preface{To: strings.Repeat("t", maxStringLen+1)}); err == nil || w.writes > 0 {
		t.Errorf("err = %v after %d writes, want an error and none", err, w.writes)
	}
}

// A refusal must arrive however much it has to say.
func TestWritePrefaceReplyCutsLongMessage(t *testing.T) {
	var buf bytes.Buffer
	if err := WritePrefaceReply(&buf, PrefaceReply{Message: "x" + strings.Repeat("é", maxStringLen)}); err != nil {
		t.Fatal(err)
	}
	got, err := ReadPrefaceReply(&buf)
	if want := "x" + strings.Repeat("é", maxStringLen/2-1); err != nil || got.Message != want {
		t.Errorf("message of %d bytes, %v; want %d whole runes", len(got.Message), err, len(want))
	}
}

func TestReadPrefaceErrors(t *testing.T) {
	cluster := strings.Repeat("\x00", 16)
	for _, tc := range []struct {
		name, in string
		want     error // nil: any
	}{
		{"nothing", "", io.EOF},
		{"part of the magic", "ski", io.ErrUnexpectedEOF},
		{"another protocol", "GET / HTTP/1.1\r\n", ErrBadMagic},
		{"another version", "skiff\x02", ErrVersion{Got: 2}},
		{"no kind", "skiff\x01", io.ErrUnexpectedEOF},
		{"no string", "skiff\x01\x01" + cluster, io.ErrUnexpectedEOF},
		{"part of a string", "skiff\x01\x01" + cluster + "\x00\x02x", io.ErrUnexpectedEOF},
		{"string too long", "skiff\x01\x01" + cluster + "\x04\x01" + strings.Repeat("x", 1025), nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := ReadPreface(strings.NewReader(tc.in))
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("ReadPreface: %v, want %v", err, tc.want)
			}
			_, err = ReadPrefaceReply(strings.NewReader(tc.in))
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("ReadPrefaceReply: %v, want %v", err, tc.want)
			}
		})
	}
}

// What can be read is what writing it gives, byte for byte.
func FuzzReadPreface(f *testing.F) {
	var buf bytes.Buffer
	WritePreface(&buf, Preface{Kind: KindRPC, ClusterID: testCluster, From: "/ip4/10.0.0.1/tcp/9490", To: "/ip4/10.0.0.2/tcp/9490"})
	f.Add(buf.Bytes())
	f.Add([]byte("skiff\x02"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		p, err := ReadPreface(r)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := WritePreface(&out, p); err != nil {
			t.Fatal(err)
		}
		if read := in[:len(in)-r.Len()]; !bytes.Equal(out.Bytes(), read) {
			t.Errorf("read %x, wrote %x", read, out.Bytes())
		}
	})
}

func FuzzReadPrefaceReply(f *testing.F) {
	var buf bytes.Buffer
	WritePrefaceReply(&buf, PrefaceReply{Refused: RefusedAddress, ClusterID: testCluster, Message: "not me"})
	f.Add(buf.Bytes())
	f.Add([]byte("skiff\x02"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := bytes.NewReader(in)
		p, err := ReadPrefaceReply(r)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := WritePrefaceReply(&out, p); err != nil {
			t.Fatal(err)
		}
		if read := in[:len(in)-r.Len()]; !bytes.Equal(out.Bytes(), read) {
			t.Errorf("read %x, wrote %x", read, out.Bytes())
		}
	})
}

func FuzzIdentity(f *testing.F) {
	f.Add(Identity{Incarnation{1, 2}, 3, 4}.Append(nil), testCluster.String())
	f.Add([]byte{}, "")
	f.Fuzz(func(t *testing.T, in []byte, text string) {
		if i, err := DecodeIdentity(in); err == nil && !bytes.Equal(i.Append(nil), in) {
			t.Errorf("%x is taken for %+v", in, i)
		}
		if id, err := ParseClusterID(text); err == nil && !strings.EqualFold(id.String(), text) {
			t.Errorf("%q is taken for %s", text, id)
		}
	})
}

type countingWriter struct {
	bytes.Buffer
	writes int
}

func (w *countingWriter) Write(p []byte) (int, error) {
	w.writes++
	return w.Buffer.Write(p)
}
