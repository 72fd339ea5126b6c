package main

import (
	"bufio"
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
)

// merge prints what is in all versions once, and with the versions that have it what is in some.
func merge(in io.Reader) error {
	versions := map[int]bool{}
	lines := map[string]map[int]bool{}
	scanner := bufio.NewScanner(in)
	for scanner.Scan() {
		version, line, _ := strings.Cut(scanner.Text(), " ")
		minor, err := strconv.Atoi(strings.TrimPrefix(version, "1."))
		if err != nil {
			return fmt.Errorf("%q begins with no version", scanner.Text())
		}
		versions[minor] = true
		if lines[line] == nil {
			lines[line] = map[int]bool{}
		}
		lines[line][minor] = true
	}
	if err := scanner.Err(); err != nil {
		return err
	}
	if len(versions) == 0 {
		return fmt.Errorf("there is nothing to merge")
	}
	loosen(lines)
	var all []int
	for minor := range versions {
		all = append(all, minor)
	}
	sort.Ints(all)
	var sorted []string
	for line := range lines {
		sorted = append(sorted, line)
	}
	sort.Slice(sorted, func(i, j int) bool { return place(sorted[i]) < place(sorted[j]) })
	fmt.Printf("# Kubernetes 1.%d to 1.%d. Written by scripts/known-schemas.\n", all[0], all[len(all)-1])
	for _, line := range sorted {
		since, until, err := span(all, lines[line])
		if err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
		words := strings.Fields(line)
		switch words[0] {
		case "type":
			line = words[1]
		case "field":
			line = "  " + strings.Join(words[2:], " ")
		}
		if since != all[0] {
			line += fmt.Sprintf(" since=1.%d", since)
		}
		if until != all[len(all)-1] {
			line += fmt.Sprintf(" until=1.%d", until)
		}
		fmt.Println(line)
	}
	return nil
}

// loosen leaves out that a field is required where some version says that it is not: the API servers before took objects
// without it, too, and Kubernetes has corrected its documents since.
func loosen(lines map[string]map[int]bool) {
	for line, minors := range lines {
		free := strings.Replace(line, " required", "", 1)
		if _, found := lines[free]; !found || free == line {
			continue
		}
		for minor := range minors {
			lines[free][minor] = true
		}
		delete(lines, line)
	}
}

// place is what lines are sorted by: kinds first, then each type with its fields behind it.
func place(line string) string {
	words := strings.Fields(line)
	if words[0] == "kind" {
		return "0 " + line
	}
	return "1 " + strings.Join(words[1:], " ")
}

// span is the first and the last version that have a line, which must have no gap.
func span(all []int, has map[int]bool) (since, until int, err error) {
	for _, minor := range all {
		switch {
		case !has[minor]:
		case since == 0:
			since, until = minor, minor
		case until != minor-1:
			return 0, 0, fmt.Errorf("is in 1.%d, not in 1.%d, and in 1.%d again", until, minor-1, minor)
		default:
			until = minor
		}
	}
	return since, until, nil
}
