// Command flags prints every flag that a program of the control plane takes, the hidden ones too, as
// scripts/known-flags needs them. Its argument is the program. A line is: program, flag, "bool" where it may stand without a value or else the
// kind of its value ("int", "uint", "float", "duration") where it is one of these, "deprecated".
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/component-base/logs"
	_ "k8s.io/component-base/logs/json/register" // a value of --logging-format
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app/options"
)

func main() {
	// One program at a time: some change defaults that others have made flags of.
	switch program := os.Args[1]; program {
	case "kube-apiserver":
		command(program, apiserver.NewAPIServerCommand())
	case "kube-controller-manager":
		command(program, controllermanager.NewControllerManagerCommand())
	case "kube-scheduler":
		command(program, scheduler.NewSchedulerCommand())
	case "kubelet":
		kubeletFlags()
	case "etcd":
		etcdFlags()
	}
}

func command(program string, command *cobra.Command) {
	// What component-base's cli.Run adds, and cobra.
	logs.AddFlags(command.PersistentFlags())
	command.InitDefaultHelpFlag()
	set := command.Flags()
	set.AddFlagSet(command.PersistentFlags())
	printSet(program, set)
}

// The kubelet parses a set of its own, which its command does not show.
func kubeletFlags() {
	set := pflag.NewFlagSet("kubelet", pflag.ContinueOnError)
	kubelet.NewKubeletFlags().AddFlags(set)
	config, err := kubelet.NewKubeletConfiguration()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	kubelet.AddKubeletConfigFlags(set, config)
	kubelet.AddGlobalFlags(set)
	set.BoolP("help", "h", false, "")
	printSet("kubelet", set)
}

func printSet(program string, set *pflag.FlagSet) {
	set.VisitAll(func(flag *pflag.Flag) {
		deprecated := flag.Deprecated != "" || strings.Contains(flag.Usage, "DEPRECATED")
		// component-base's cli.Run makes `-` of every `_`.
		printFlag(program, strings.ReplaceAll(flag.Name, "_", "-"), flag.NoOptDefVal != "", flag.Value.Type(), deprecated)
	})
}

// Not all flags of etcd's are in the package that can be imported; the rest is in etcdmain/config.go.
func etcdFlags() {
	set := flag.NewFlagSet("etcd", flag.ContinueOnError)
	embed.NewConfig().AddFlags(set)
	for _, name := range []string{"config-file", "discovery-fallback", "initial-cluster-state", "v2-deprecation"} {
		set.String(name, "", "")
	}
	set.Bool("version", false, "")
	set.VisitAll(func(flag *flag.Flag) {
		bool, ok := flag.Value.(interface{ IsBoolFlag() bool })
		deprecated := flag.Name == "v2-deprecation" || strings.Contains(strings.ToLower(flag.Usage), "deprecated")
		// Its type is the package's own: *flag.durationValue.
		kind := strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%T", flag.Value), "*flag."), "Value")
		printFlag("etcd", flag.Name, ok && bool.IsBoolFlag(), kind, deprecated)
	})
}

func printFlag(program, name string, isBool bool, kind string, deprecated bool) {
	line := program + " " + name
	switch kind = strings.TrimRight(kind, "0123456789"); {
	case isBool:
		line += " bool"
	case kind == "int", kind == "uint", kind == "float", kind == "duration":
		line += " " + kind
	}
	if deprecated {
		line += " deprecated"
	}
	fmt.Println(line)
}
