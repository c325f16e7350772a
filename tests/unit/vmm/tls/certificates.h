// A CA, and certificates of it, made for a test.
#pragma once

#include <array>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <string>
#include <unistd.h>

#include <sys/stat.h>

#include <gtest/gtest.h>

namespace vmm::tls::test {

class Key {
  public:
    explicit Key(gnutls_pk_algorithm_t algorithm = GNUTLS_PK_ECDSA,
                 unsigned bits = GNUTLS_CURVE_TO_BITS(GNUTLS_ECC_CURVE_SECP256R1)) {
        gnutls_x509_privkey_init(&key_);
        EXPECT_EQ(gnutls_x509_privkey_generate(key_, algorithm, bits, 0), 0);
    }
    Key(const Key&) = delete;
    Key& operator=(const Key&) = delete;
    ~Key() { gnutls_x509_privkey_deinit(key_); }
    gnutls_x509_privkey_t get() const { return key_; }
    std::string pem() const {
        gnutls_datum_t out{};
        EXPECT_EQ(gnutls_x509_privkey_export2(key_, GNUTLS_X509_FMT_PEM, &out), 0);
        std::string text(reinterpret_cast<const char*>(out.data), out.size);  // NOLINT
        gnutls_free(out.data);
        return text;
    }

  private:
    gnutls_x509_privkey_t key_ = nullptr;
};

// What is asked of a certificate.
struct Wanted {
    std::string common_name = "a host";
    std::string dns = {};                 // empty: none
    std::string purpose = {};             // an OID; empty: any
    std::time_t from = -3600, to = 3600;  // from now
};

class Cert {
  public:
    // `issuer`: null for a CA, which signs itself.
    Cert(const Wanted& wanted, const Key& key, const Cert* issuer, const Key& issuer_key) {
        gnutls_x509_crt_init(&certificate_);
        gnutls_x509_crt_set_version(certificate_, 3);
        static unsigned char serial = 0;
        ++serial;
        gnutls_x509_crt_set_serial(certificate_, &serial, 1);
        const std::time_t now = std::time(nullptr);
        gnutls_x509_crt_set_activation_time(certificate_, now + wanted.from);
        gnutls_x509_crt_set_expiration_time(certificate_, now + wanted.to);
        gnutls_x509_crt_set_dn_by_oid(certificate_, GNUTLS_OID_X520_COMMON_NAME, 0,
                                      wanted.common_name.data(),
                                      static_cast<unsigned>(wanted.common_name.size()));
        gnutls_x509_crt_set_key(certificate_, key.get());
        gnutls_x509_crt_set_ca_status(certificate_, issuer == nullptr ? 1 : 0);
        gnutls_x509_crt_set_key_usage(
            certificate_, issuer == nullptr ? GNUTLS_KEY_KEY_CERT_SIGN | GNUTLS_KEY_CRL_SIGN
                                            : GNUTLS_KEY_DIGITAL_SIGNATURE);
        if (!wanted.dns.empty()) {
            gnutls_x509_crt_set_subject_alt_name(certificate_, GNUTLS_SAN_DNSNAME,
                                                 wanted.dns.data(),
                                                 static_cast<unsigned>(wanted.dns.size()), 0);
        }
        if (!wanted.purpose.empty()) {
            gnutls_x509_crt_set_key_purpose_oid(certificate_, wanted.purpose.c_str(), 0);
        }
        EXPECT_EQ(gnutls_x509_crt_sign2(certificate_,
                                        issuer == nullptr ? certificate_ : issuer->certificate_,
                                        issuer_key.get(), GNUTLS_DIG_SHA256, 0),
                  0);
    }
    Cert(const Cert&) = delete;
    Cert& operator=(const Cert&) = delete;
    ~Cert() { gnutls_x509_crt_deinit(certificate_); }
    gnutls_x509_crt_t get() const { return certificate_; }
    std::string pem() const {
        gnutls_datum_t out{};
        EXPECT_EQ(gnutls_x509_crt_export2(certificate_, GNUTLS_X509_FMT_PEM, &out), 0);
        std::string text(reinterpret_cast<const char*>(out.data), out.size);  // NOLINT
        gnutls_free(out.data);
        return text;
    }

  private:
    gnutls_x509_crt_t certificate_ = nullptr;
};

struct Authority {
    std::string name = "a CA";
    Key key{};
    Cert certificate{Wanted{.common_name = name}, key, nullptr, key};
    // A list of one certificate that is revoked.
    std::string revoke(const Cert& which) const {
        gnutls_x509_crl_t list = nullptr;
        gnutls_x509_crl_init(&list);
        const std::time_t now = std::time(nullptr);
        gnutls_x509_crl_set_version(list, 2);
        gnutls_x509_crl_set_this_update(list, now - 60);
        gnutls_x509_crl_set_next_update(list, now + 3600);
        const unsigned char number = 1;
        gnutls_x509_crl_set_number(list, &number, 1);
        EXPECT_EQ(gnutls_x509_crl_set_crt(list, which.get(), now - 60), 0);
        EXPECT_EQ(gnutls_x509_crl_sign2(list, certificate.get(), key.get(), GNUTLS_DIG_SHA256, 0),
                  0);
        gnutls_datum_t out{};
        EXPECT_EQ(gnutls_x509_crl_export2(list, GNUTLS_X509_FMT_PEM, &out), 0);
        std::string text(reinterpret_cast<const char*>(out.data), out.size);  // NOLINT
        gnutls_free(out.data);
        gnutls_x509_crl_deinit(list);
        return text;
    }
};

// A --tls-dir that removes itself.
class Folder {
  public:
    Folder() {
        path_ = std::filesystem::temp_directory_path() / "xenolith-test-XXXXXX";
        EXPECT_NE(::mkdtemp(path_.data()), nullptr);
    }
    Folder(const Authority& trusted, const Cert& certificate, const Key& key) : Folder() {
        write("ca.pem", trusted.certificate.pem());
        write("cert.pem", certificate.pem());
        write("key.pem", key.pem());
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() { std::filesystem::remove_all(path_); }
    const std::string& path() const { return path_; }
    void write(const std::string& name, const std::string& text, mode_t mode = 0600) const {
        std::ofstream(path_ + "/" + name) << text;
        ::chmod((path_ + "/" + name).c_str(), mode);
    }

  private:
    std::string path_;
};

// A host: a folder with a certificate and key of its own.
struct Host {
    Key key;
    Cert certificate;
    Folder folder;
    Host(const Authority& authority, const Wanted& wanted)
        : certificate(wanted, key, &authority.certificate, authority.key),
          folder(authority, certificate, key) {}
};

}  // namespace vmm::tls::test
