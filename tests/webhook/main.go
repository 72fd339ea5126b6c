// A validating webhook of the e2e tests: it refuses every object whose spec.size is above 10.
package main

import (
	"encoding/json"
	"fmt"
	"log"
	"net/http"
	"os"
)

type review struct {
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Request    *request  `json:"request,omitempty"`
	Response   *response `json:"response,omitempty"`
}

type request struct {
	UID    string `json:"uid"`
	Object struct {
		Spec struct {
			Size int `json:"size"`
		} `json:"spec"`
	} `json:"object"`
}

type response struct {
	UID     string  `json:"uid"`
	Allowed bool    `json:"allowed"`
	Status  *status `json:"status,omitempty"`
}

type status struct {
	Message string `json:"message"`
}

func judge(w http.ResponseWriter, r *http.Request) {
	var asked review
	if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || asked.Request == nil {
		http.Error(w, "no AdmissionReview", http.StatusBadRequest)
		return
	}
	size := asked.Request.Object.Spec.Size
	answer := response{UID: asked.Request.UID, Allowed: size <= 10}
	if !answer.Allowed {
		answer.Status = &status{fmt.Sprintf("a size of %d is too large", size)}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review{APIVersion: asked.APIVersion, Kind: asked.Kind, Response: &answer})
}

func main() {
	http.HandleFunc("/", judge)
	log.Fatal(http.ListenAndServeTLS(os.Args[1], "/tls/tls.crt", "/tls/tls.key", nil))
}
