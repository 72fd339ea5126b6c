package main

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"
)

// schema is what of an OpenAPI schema matters here.
type schema struct {
	Type                 string             `json:"type"`
	Format               string             `json:"format"`
	Ref                  string             `json:"$ref"`
	AllOf                []schema           `json:"allOf"`
	Items                *schema            `json:"items"`
	AdditionalProperties *schema            `json:"additionalProperties"`
	Properties           map[string]*schema `json:"properties"`
	Required             []string           `json:"required"`
	Default              any                `json:"default"`
	ListType             string             `json:"x-kubernetes-list-type"`
	ListMapKeys          []string           `json:"x-kubernetes-list-map-keys"`
}

type operation struct {
	Action string `json:"x-kubernetes-action"`
	Kind   struct {
		Group   string `json:"group"`
		Version string `json:"version"`
		Kind    string `json:"kind"`
	} `json:"x-kubernetes-group-version-kind"`
	Responses map[string]struct {
		Content map[string]struct {
			Schema schema `json:"schema"`
		} `json:"content"`
	} `json:"responses"`
}

type document struct {
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Schemas map[string]*schema `json:"schemas"`
	} `json:"components"`
}

// Types that say less in OpenAPI than what is accepted of them.
var special = map[string]string{
	"apimachinery.pkg.api.resource.Quantity":   "quantity",
	"apimachinery.pkg.util.intstr.IntOrString": "int-or-string",
	"meta.v1.Time":                                  "time",
	"meta.v1.MicroTime":                             "time",
	"meta.v1.FieldsV1":                              "object",
	"apimachinery.pkg.runtime.RawExtension":         "any",
	"apiextensions.v1.JSON":                         "any",
	"apiextensions.v1.JSONSchemaPropsOrBool":        "schema|bool",
	"apiextensions.v1.JSONSchemaPropsOrArray":       "schema|[]schema",
	"apiextensions.v1.JSONSchemaPropsOrStringArray": "schema|[]string",
}

// A resource by itself, and not one of its subresources.
var resourcePath = regexp.MustCompile(`^/apis?/[^{]*?(namespaces/\{namespace\}/)?[^/{}]+/\{name\}$`)

type reader struct {
	schemas map[string]*schema
	lines   []string
	done    map[string]bool
}

// api prints the kinds that can be applied, and every type that they lead to.
func api(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "api/openapi-spec/v3/*.json"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("%s has no OpenAPI documents (%v)", dir, err)
	}
	r := &reader{schemas: map[string]*schema{}, done: map[string]bool{}}
	kinds := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		var doc document
		if err := json.Unmarshal(text, &doc); err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		for name, s := range doc.Components.Schemas {
			r.schemas[short(name)] = s
		}
		for path, verbs := range doc.Paths {
			raw, ok := verbs["patch"]
			if !ok || !resourcePath.MatchString(path) {
				continue
			}
			var patch operation
			if err := json.Unmarshal(raw, &patch); err != nil {
				return fmt.Errorf("%s: %s: %w", file, path, err)
			}
			answer := patch.Responses["200"].Content["application/json"].Schema
			version := strings.TrimPrefix(patch.Kind.Group+"/"+patch.Kind.Version, "/")
			kinds[version+" "+patch.Kind.Kind] = short(answer.name())
		}
	}
	for kind, name := range kinds {
		if name == "" {
			return fmt.Errorf("%s: its type is not known", kind)
		}
		r.lines = append(r.lines, "kind "+kind+" "+name)
		if err := r.read(name); err != nil {
			return err
		}
	}
	sort.Strings(r.lines)
	for _, line := range r.lines {
		fmt.Println(line)
	}
	return nil
}

// short is a type's name without what all have in front.
func short(name string) string {
	for _, prefix := range []string{
		"io.k8s.apimachinery.pkg.apis.", "io.k8s.apiextensions-apiserver.pkg.apis.", "io.k8s.kube-aggregator.pkg.apis.",
		"io.k8s.api.", "io.k8s.",
	} {
		if rest, found := strings.CutPrefix(name, prefix); found {
			return rest
		}
	}
	return name
}

// name is the type that a schema refers to.
func (s *schema) name() string {
	if s.Ref == "" && len(s.AllOf) == 1 {
		return s.AllOf[0].name()
	}
	return s.Ref[strings.LastIndex(s.Ref, "/")+1:]
}

func (r *reader) read(name string) error {
	if r.done[name] || special[name] != "" {
		return nil
	}
	r.done[name] = true
	s, ok := r.schemas[name]
	if !ok {
		return fmt.Errorf("%s is not among the schemas", name)
	}
	if s.Type != "object" {
		return fmt.Errorf("%s is a %q, which is not foreseen", name, s.Type)
	}
	r.lines = append(r.lines, "type "+name)
	for field, of := range s.Properties {
		value, err := r.value(of)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", name, field, err)
		}
		line := fmt.Sprintf("field %s %s %s", name, field, value)
		if slices.Contains(s.Required, field) && required()[name+" "+field] {
			line += " required"
		}
		switch {
		case len(of.ListMapKeys) > 0:
			keys, err := r.keys(of)
			if err != nil {
				return fmt.Errorf("%s.%s: %w", name, field, err)
			}
			line += " keys=" + keys
		case of.ListType == "set":
			line += " set"
		}
		r.lines = append(r.lines, line)
	}
	return nil
}

func (r *reader) value(s *schema) (string, error) {
	if name := short(s.name()); name != "" {
		if token := special[name]; token != "" {
			return token, nil
		}
		return name, r.read(name)
	}
	switch s.Type + " " + s.Format {
	case "string ":
		return "string", nil
	case "string byte":
		return "bytes", nil
	case "string date-time":
		return "time", nil
	case "string int-or-string":
		return "int-or-string", nil
	case "boolean ":
		return "bool", nil
	case "integer int32", "integer int64":
		return s.Format, nil
	case "number double":
		return "number", nil
	case "array ":
		item, err := r.value(s.Items)
		return "[]" + item, err
	case "object ":
		if s.AdditionalProperties == nil {
			return "object", nil
		}
		item, err := r.value(s.AdditionalProperties)
		return "{}" + item, err
	}
	return "", fmt.Errorf("a value of type %q, format %q is not foreseen", s.Type, s.Format)
}

// keys are the fields by which a list's items differ, each with what it is where it is left out.
func (r *reader) keys(s *schema) (string, error) {
	item, ok := r.schemas[short(s.Items.name())]
	if !ok {
		return "", fmt.Errorf("its items have no type")
	}
	var keys []string
	for _, key := range s.ListMapKeys {
		if of := item.Properties[key]; of != nil && of.Default != nil && of.Default != "" && of.Default != 0.0 {
			key = fmt.Sprintf("%s:%v", key, of.Default)
		}
		keys = append(keys, key)
	}
	return strings.Join(keys, ","), nil
}

//go:embed required.txt
var requiredText string

// required are the lines of required.txt.
var required = sync.OnceValue(func() map[string]bool {
	found := map[string]bool{}
	for line := range strings.Lines(requiredText) {
		found[strings.TrimSpace(line)] = true
	}
	return found
})
