// An aggregated API server of the e2e tests. It answers who has issued the certificate that the API server has shown, and refuses one
// that no CA in the file vouches for: as Kubernetes' own library does, at each request, whenever its connection was made.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"log"
	"net/http"
	"os"
)

func trusted(file string) *x509.CertPool {
	pool := x509.NewCertPool()
	if pem, err := os.ReadFile(file); err != nil || !pool.AppendCertsFromPEM(pem) {
		log.Printf("no CA in %s: %v", file, err)
	}
	return pool
}

func main() {
	address, file := os.Args[1], os.Args[2]
	pair, err := tls.LoadX509KeyPair("/tls/tls.crt", "/tls/tls.key")
	if err != nil {
		log.Fatal(err)
	}
	each := func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{
			Certificates: []tls.Certificate{pair},
			ClientAuth:   tls.RequestClientCert,
			ClientCAs:    trusted(file),
			NextProtos:   []string{"h2", "http/1.1"},
		}, nil
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		shown := r.TLS.PeerCertificates
		if len(shown) == 0 {
			http.Error(w, "no certificate", http.StatusUnauthorized)
			return
		}
		usages := []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		if _, err := shown[0].Verify(x509.VerifyOptions{Roots: trusted(file), KeyUsages: usages}); err != nil {
			log.Printf("refused: %v", err)
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		answer := map[string]any{"kind": "Issuer", "apiVersion": "probe.example.com/v1", "issuer": shown[0].Issuer.CommonName}
		switch r.URL.Path {
		case "/apis/probe.example.com/v1/issuer":
		case "/apis/probe.example.com/v1":
			answer = map[string]any{"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "probe.example.com/v1", "resources": []any{}}
		default:
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
	})
	server := &http.Server{Addr: address, TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, GetConfigForClient: each}}
	log.Fatal(server.ListenAndServeTLS("", ""))
}
