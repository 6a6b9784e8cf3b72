package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// process is a member in a process of its own, as its parent has it. It is used by one
// goroutine. Whoever starts one must kill it, also after it has been stopped or killed before.
type process struct {
	command *exec.Cmd
	stdin   io.WriteCloser
	begun   time.Time
	lines   chan line // closed when the process has ended, after which err is set
	err     error
}

// line is what a process wrote, and when that came.
type line struct {
	text string
	at   time.Time
}

// startMember executes this program again. It does not wait for anything.
func startMember(o memberOptions) (*process, error) {
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start a member: %w", err)
	}
	p := &process{command: exec.Command(program, o.args()...), lines: make(chan line, 2)}
	p.command.Stderr = os.Stderr
	if p.stdin, err = p.command.StdinPipe(); err != nil {
		return nil, fmt.Errorf("start a member: %w", err)
	}
	stdout, err := p.command.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a member: %w", err)
	}
	p.begun = time.Now()
	if err := p.command.Start(); err != nil {
		return nil, fmt.Errorf("start a member: %w", err)
	}
	go p.listen(stdout)
	return p, nil
}

func (p *process) listen(stdout io.Reader) {
	in := bufio.NewScanner(stdout)
	for in.Scan() {
		p.lines <- line{in.Text(), time.Now()}
	}
	p.err = p.command.Wait()
	close(p.lines)
}

// next is the next line that the process writes.
func (p *process) next() (line, error) {
	select {
	case l, ok := <-p.lines:
		if !ok {
			return l, fmt.Errorf("the member has ended: %w", errors.Join(io.ErrUnexpectedEOF, p.err))
		}
		return l, nil
	case <-time.After(memberPatience):
		return line{}, errors.New("the member is silent")
	}
}

// reaches waits for a line that the process writes by itself, and tells how long that
// took from the exec.
func (p *process) reaches(stage string) (time.Duration, error) {
	l, err := p.next()
	if err == nil && l.text != stage {
		err = fmt.Errorf("the member says %q", l.text)
	}
	if err != nil {
		return 0, fmt.Errorf("wait until a member is %s: %w", stage, err)
	}
	return l.at.Sub(p.begun), nil
}

// serves waits for both stages of a member's start.
func (p *process) serves() (local, linearizable time.Duration, err error) {
	if local, err = p.reaches("local"); err == nil {
		linearizable, err = p.reaches("linearizable")
	}
	return local, linearizable, err
}

func (p *process) ask(command string) (string, error) {
	if _, err := fmt.Fprintln(p.stdin, command); err != nil {
		return "", fmt.Errorf("ask a member to %s: %w", command, err)
	}
	l, err := p.next()
	if err != nil {
		return "", fmt.Errorf("ask a member to %s: %w", command, err)
	}
	return l.text, nil
}

// order has a member do something, and returns how many seconds it took by its own clock.
func (p *process) order(command string) (float64, error) {
	answer, err := p.ask(command)
	if err != nil {
		return 0, err
	}
	seconds, err := strconv.ParseFloat(answer, 64)
	if err != nil {
		return 0, fmt.Errorf("a member was to %s: %s", command, answer)
	}
	return seconds, nil
}

func (p *process) leads() (bool, error) {
	answer, err := p.ask("leads")
	return answer == "true", err
}

func (p *process) use() (procUse, error) { return useOf(p.command.Process.Pid) }

func (p *process) resetPeak() error { return resetPeak(p.command.Process.Pid) }

// kill ends the process with SIGKILL, and waits until it is gone.
func (p *process) kill() {
	_ = p.command.Process.Kill() // fails if it has ended
	for range p.lines {
		continue
	}
}

// stop has the member stop in order, and kills it if it does not.
func (p *process) stop() error {
	defer p.kill()
	if _, err := fmt.Fprintln(p.stdin, "stop"); err != nil {
		return fmt.Errorf("stop a member: %w", err)
	}
	for {
		_, err := p.next()
		switch {
		case err == nil:
		case errors.Is(err, io.ErrUnexpectedEOF) && p.err == nil:
			return nil
		default:
			return fmt.Errorf("stop a member: %w", err)
		}
	}
}
