package main

import (
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	logs "k8s.io/component-base/logs/api/v1"
	proxy "k8s.io/kube-proxy/config/v1alpha1"
	kubelet "k8s.io/kubelet/config/v1beta1"
)

// Types that read themselves.
var readers = map[reflect.Type]string{
	reflect.TypeFor[metav1.Duration]():         "duration",
	reflect.TypeFor[metav1.Time]():             "time",
	reflect.TypeFor[resource.Quantity]():       "quantity",
	reflect.TypeFor[logs.TimeOrMetaDuration](): "duration-or-int",
	reflect.TypeFor[resource.QuantityValue]():  "quantity",
}

var (
	unmarshaler     = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

type walker struct {
	lines []string
	done  map[reflect.Type]bool
}

// config prints the types of the configurations, as Go's JSON reads them.
func config() error {
	w := walker{done: map[reflect.Type]bool{}}
	for version, of := range map[string]reflect.Type{
		"kubelet.config.k8s.io/v1beta1":    reflect.TypeFor[kubelet.KubeletConfiguration](),
		"kubeproxy.config.k8s.io/v1alpha1": reflect.TypeFor[proxy.KubeProxyConfiguration](),
	} {
		name, err := w.named(of)
		if err != nil {
			return err
		}
		w.lines = append(w.lines, "kind "+version+" "+of.Name()+" "+name)
	}
	sort.Strings(w.lines)
	for _, line := range w.lines {
		fmt.Println(line)
	}
	return nil
}

// named is the name of a struct, whose fields are walked.
func (w *walker) named(t reflect.Type) (string, error) {
	path := strings.Split(t.PkgPath(), "/")
	// k8s.io/kubelet/config/v1beta1 is kubelet.v1beta1; k8s.io/api/core/v1 is core.v1.
	name := strings.NewReplacer("k8s.io.", "", ".config", "", ".pkg", "", ".apis", "", "api.", "").
		Replace(strings.Join(path, ".")) + "." + t.Name()
	if w.done[t] {
		return name, nil
	}
	w.done[t] = true
	w.lines = append(w.lines, "type "+name)
	return name, w.fields(name, t)
}

func (w *walker) fields(name string, t reflect.Type) error {
	for i := range t.NumField() {
		field := t.Field(i)
		tag, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case tag == "-" || !field.IsExported():
			continue
		case tag == "" && (field.Anonymous || strings.Contains(options, "inline")):
			if err := w.fields(name, field.Type); err != nil {
				return err
			}
			continue
		case tag == "":
			tag = field.Name
		}
		value, err := w.value(field.Type)
		if err != nil {
			return fmt.Errorf("%s.%s: %w", name, field.Name, err)
		}
		w.lines = append(w.lines, fmt.Sprintf("field %s %s %s", name, tag, value))
	}
	return nil
}

func (w *walker) value(t reflect.Type) (string, error) {
	if t.Kind() == reflect.Pointer {
		// Null is no pointer, whatever it leads to.
		value, err := w.value(t.Elem())
		return strings.TrimSuffix(value, "!"), err
	}
	if token, found := readers[t]; found {
		if json.Unmarshal([]byte("null"), reflect.New(t).Interface()) != nil {
			token += "!"
		}
		return token, nil
	}
	if p := reflect.PointerTo(t); p.Implements(unmarshaler) || p.Implements(textUnmarshaler) {
		return "", fmt.Errorf("%s reads itself, which is not foreseen", t)
	}
	switch t.Kind() {
	case reflect.String:
		return "string", nil
	case reflect.Bool:
		return "bool", nil
	case reflect.Int32:
		return "int32", nil
	case reflect.Int, reflect.Int64:
		return "int64", nil
	case reflect.Uint32:
		return "uint32", nil
	case reflect.Float32, reflect.Float64:
		return "number", nil
	case reflect.Struct:
		return w.named(t)
	case reflect.Slice:
		item, err := w.value(t.Elem())
		return "[]" + item, err
	case reflect.Map:
		item, err := w.value(t.Elem())
		return "{}" + item, err
	}
	return "", fmt.Errorf("%s is not foreseen", t)
}
