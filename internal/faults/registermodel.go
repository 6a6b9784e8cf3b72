package faults

import (
	"fmt"
	"maps"
	"slices"

	"github.com/anishathalye/porcupine"
)

// registerAction is what is done to a key.
type registerAction int

const (
	writeRegister registerAction = iota
	readRegister
	swapRegister // write if it has the expected value
)

// registerInput and registerOutput are an operation on one key. An absent key has the
// value "", which nobody writes, and to write it is to delete the key. As no value is
// written twice, a version and the value that has it are the same condition.
type registerInput struct {
	action registerAction
	key    int
	expect string // by a swap
	value  string // to write
}

type registerOutput struct {
	value   string // that was read
	swapped bool
	unknown bool // whether it was swapped
}

// registerModel is a key: a read gives what was last written.
var registerModel = porcupine.Model{
	Partition: func(ops []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[int][]porcupine.Operation{}
		for _, op := range ops {
			key := op.Input.(registerInput).key
			byKey[key] = append(byKey[key], op)
		}
		return slices.Collect(maps.Values(byKey))
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		in, out, value := input.(registerInput), output.(registerOutput), state.(string)
		switch {
		case in.action == readRegister:
			return out.value == value, value
		case in.action == writeRegister:
			return true, in.value
		case !out.unknown && out.swapped != (in.expect == value):
			return false, value
		case in.expect == value:
			return true, in.value
		}
		return true, value
	},
	DescribeOperation: func(input, output any) string {
		in, out := input.(registerInput), output.(registerOutput)
		switch in.action {
		case readRegister:
			return fmt.Sprintf("get %d → %q", in.key, out.value)
		case writeRegister:
			return fmt.Sprintf("put %d %q", in.key, in.value)
		}
		return fmt.Sprintf("swap %d %q for %q → %t", in.key, in.value, in.expect, out.swapped)
	},
}
