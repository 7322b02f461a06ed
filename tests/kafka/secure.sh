# Sourced by `cluster` for `--secure`: certificates in DIR/tls, users, and listeners that ask for
# them, so that one start serves all tests of TLS and SASL.
# shellcheck shell=bash disable=SC2034,SC2154  # what cluster has and takes
#
#   SSL                TLS; a client's certificate is not asked for
#   MTLS               TLS; a client's certificate is needed
#   SIX                TLS, on [::1]
#   EXPIRED, OTHER     TLS with a certificate that is out of date, or bears another name
#   SASL, SASL_SSL     PLAIN, both SCRAM, OAUTHBEARER with unsecured tokens; without and with TLS
#   BRIEF              as SASL_SSL, sessions end after 10 s
#   OIDC               TLS, OAUTHBEARER with tokens of tests/kafka/idp
#
# Users: alice (PLAIN), carol (SCRAM); the password is the name and -secret.
secure_listeners=(SSL MTLS SIX EXPIRED OTHER SASL SASL_SSL BRIEF OIDC)
brief_ms=10000

# The provider's URLs must be allowed by hand.
secure_jvm=(-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls="file://$dir/tls/jwks.json")
secure_users=(
  --add-scram 'SCRAM-SHA-256=[name=carol,password=carol-secret]'
  --add-scram 'SCRAM-SHA-512=[name=carol,password=carol-secret]'
)

secure_ports() { # secure_ports NODE: one a listener
  local ports=() listener
  for listener in "${secure_listeners[@]}"; do ports+=("$(free_port "$dir")"); done
  echo "${ports[@]}" >"$dir/$1/secure-ports"
}

addresses() { # addresses NODE → LISTENER host:port
  local ports at host
  read -ra ports <"$dir/$1/secure-ports"
  for at in "${!secure_listeners[@]}"; do
    host=127.0.0.1
    [ "${secure_listeners[at]}" != SIX ] || host='[::1]'
    echo "${secure_listeners[at]} $host:${ports[at]}"
  done
}

certificate() { # certificate NAME SUBJECT_ALTERNATIVE_NAMES [BEGIN END]
  local begin=${3:-20200101000000Z} end=${4:-20491231000000Z} name=$1
  openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
    -keyout "$name.key" -out "$name.csr" -subj "/CN=$name"
  printf '%s\n' "subjectAltName=$2" basicConstraints=CA:FALSE \
    extendedKeyUsage=serverAuth,clientAuth >"$name.ext"
  openssl ca -batch -config ca.conf -in "$name.csr" -out "$name.pem" -notext \
    -startdate "$begin" -enddate "$end" -extfile "$name.ext"
  openssl pkcs12 -export -in "$name.pem" -inkey "$name.key" -certfile ca.pem \
    -out "$name.p12" -passout pass:tidegate
}

authority() { # authority NAME
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1.key" \
    -out "$1.pem" -days 3650 -subj "/CN=$1" -addext basicConstraints=critical,CA:TRUE \
    -addext keyUsage=critical,keyCertSign,cRLSign
}

make_certificates() { (
  mkdir -p "$dir/tls"
  cd "$dir/tls" || exit
  cat >ca.conf <<END
[ca]
default_ca = it
[it]
database = index
new_certs_dir = .
rand_serial = yes
unique_subject = no
certificate = ca.pem
private_key = ca.key
default_md = sha256
policy = any
[any]
commonName = supplied
END
  : >index
  here_names=IP:127.0.0.1,IP:::1,DNS:localhost
  {
    authority ca
    authority stranger
    certificate broker "$here_names,DNS:kafka.test"
    certificate expired "$here_names" 20200101000000Z 20200201000000Z
    certificate other DNS:other.test
    certificate client DNS:client
    openssl genrsa -out idp.key 2048
  } >log 2>&1 || { cat log >&2; fail "no certificates"; }
  "$here/idp" keys . >jwks.json
); }

add_secure_properties() { # add_secure_properties NODE
  local all='' map='' listener address protocol file=$dir/$1/server.properties
  while read -r listener address; do
    case $listener in
      SASL) protocol=SASL_PLAINTEXT ;;
      SASL_SSL | BRIEF | OIDC) protocol=SASL_SSL ;;
      *) protocol=SSL ;;
    esac
    all+=,$listener://$address map+=,$listener:$protocol
  done < <(addresses "$1")
  sed -i -e "s|^listeners=.*|&$all|" -e "s|^advertised.listeners=.*|&$all|" \
    -e "s|^listener.security.protocol.map=.*|&$map|" "$file"
  secure_properties >>"$file"
}

secure_properties() {
  local listener bearer
  cat <<END
ssl.keystore.location=$dir/tls/broker.p12
listener.name.expired.ssl.keystore.location=$dir/tls/expired.p12
listener.name.other.ssl.keystore.location=$dir/tls/other.p12
listener.name.mtls.ssl.client.auth=required
num.network.threads=1
ssl.keystore.type=PKCS12
ssl.keystore.password=tidegate
ssl.truststore.type=PEM
ssl.truststore.location=$dir/tls/ca.pem
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
connection.failed.authentication.delay.ms=100
END
  local package=org.apache.kafka.common.security
  for listener in sasl sasl_ssl brief oidc; do
    bearer='unsecuredLoginStringClaim_sub="admin"'
    [ $listener != oidc ] || bearer=
    cat <<END
listener.name.$listener.plain.sasl.jaas.config=$package.plain.PlainLoginModule required user_alice="alice-secret";
listener.name.$listener.scram-sha-256.sasl.jaas.config=$package.scram.ScramLoginModule required;
listener.name.$listener.scram-sha-512.sasl.jaas.config=$package.scram.ScramLoginModule required;
listener.name.$listener.oauthbearer.sasl.jaas.config=$package.oauthbearer.OAuthBearerLoginModule required $bearer;
END
  done
  for listener in plain scram-sha-256 scram-sha-512 oauthbearer; do
    echo "listener.name.brief.$listener.connections.max.reauth.ms=$brief_ms"
  done
  cat <<END
listener.name.oidc.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.oidc.oauthbearer.sasl.server.callback.handler.class=$package.oauthbearer.OAuthBearerValidatorCallbackHandler
listener.name.oidc.sasl.oauthbearer.jwks.endpoint.url=file://$dir/tls/jwks.json
listener.name.oidc.sasl.oauthbearer.expected.audience=kafka
listener.name.oidc.sasl.oauthbearer.expected.issuer=https://idp.test
END
}

# DIR/secure: LISTENER host:port,… of all nodes, a line each.
secure_bootstrap() { # secure_bootstrap COUNT
  local node
  for node in $(seq "$1"); do addresses "$node"; done |
    awk '{ all[$1] = all[$1] (all[$1] ? "," : "") $2 } END { for (l in all) print l, all[l] }'
}
