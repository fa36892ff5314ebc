// Statusjudge tells what GitOps tools make of objects, by the very libraries that they use.
//
//	statusjudge kstatus        kstatus, which Flux and Helm go by
//	statusjudge lua SCRIPT     what a Lua script of Argo CD returns for each object
//
// It reads a JSON array of objects and writes a JSON array of answers, one for each.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	luajson "layeh.com/gopher-json"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// Argo CD gives a script as long.
const luaTimeout = time.Second

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "statusjudge:", err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	var judge func(object json.RawMessage) (any, error)
	switch {
	case len(arguments) == 1 && arguments[0] == "kstatus":
		judge = byKstatus
	case len(arguments) == 2 && arguments[0] == "lua":
		script, err := os.ReadFile(arguments[1])
		if err != nil {
			return err
		}
		judge = func(object json.RawMessage) (any, error) { return byLua(string(script), object) }
	default:
		return fmt.Errorf("use: statusjudge kstatus, or: statusjudge lua SCRIPT")
	}
	var objects []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		return fmt.Errorf("reading objects: %w", err)
	}
	answers := make([]any, 0, len(objects))
	for number, object := range objects {
		answer, err := judge(object)
		if err != nil {
			return fmt.Errorf("object %d: %w", number, err)
		}
		answers = append(answers, answer)
	}
	return json.NewEncoder(os.Stdout).Encode(answers)
}

func byKstatus(object json.RawMessage) (any, error) {
	var decoded unstructured.Unstructured
	if err := decoded.UnmarshalJSON(object); err != nil {
		return nil, err
	}
	result, err := status.Compute(&decoded)
	if err != nil {
		return nil, err
	}
	return map[string]any{"status": result.Status, "message": result.Message}, nil
}

// byLua runs a script with no more than Argo CD allows it by default: neither files nor programs, no string library,
// and of os only what tells the time.
func byLua(script string, object json.RawMessage) (any, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage},
		{lua.BaseLibName, lua.OpenBase},
		{lua.TabLibName, lua.OpenTable},
		{lua.OsLibName, lua.OpenOs},
	} {
		call := lua.P{Fn: state.NewFunction(library.open), Protect: true}
		if err := state.CallByParam(call, lua.LString(library.name)); err != nil {
			return nil, err
		}
	}
	full := state.GetGlobal(lua.OsLibName).(*lua.LTable)
	full.ForEach(func(name, _ lua.LValue) {
		if name.String() != "time" && name.String() != "date" {
			full.RawSet(name, lua.LNil)
		}
	})

	decoded, err := luajson.Decode(state, object)
	if err != nil {
		return nil, err
	}
	state.SetGlobal("obj", decoded)
	ctx, cancel := context.WithTimeout(context.Background(), luaTimeout)
	defer cancel()
	state.SetContext(ctx)
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	encoded, err := luajson.Encode(state.Get(-1))
	return json.RawMessage(encoded), err
}
