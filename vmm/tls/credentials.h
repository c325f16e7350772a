// Who we are and whom we trust: the files of --tls-dir, and what is asked of the other side's
// certificate.
#pragma once

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "vmm/base/result.h"

namespace vmm::tls {

enum class Role { kClient, kServer };

// Why a certificate is refused, for the operator here, and the alert that tells the one there.
struct Refusal {
    std::string why;
    gnutls_alert_description_t alert = GNUTLS_A_BAD_CERTIFICATE;
};

class Credentials {
  public:
    // ca.pem, cert.pem, key.pem and, if it is there, crl.pem. A failure names the file.
    static Result<Credentials> load(const std::string& folder);

    gnutls_certificate_credentials_t get() const { return credentials_.get(); }
    const std::string& folder() const { return folder_; }

  private:
    struct Free {
        void operator()(gnutls_certificate_credentials_t c) const {
            gnutls_certificate_free_credentials(c);
        }
    };
    using Handle = std::unique_ptr<std::remove_pointer_t<gnutls_certificate_credentials_t>, Free>;
    Credentials(Handle credentials, std::string folder)
        : credentials_(std::move(credentials)), folder_(std::move(folder)) {}

    Handle credentials_;
    std::string folder_;
};

// The certificate that a session's other side has shown.
class Certificate {
  public:
    // None if it has shown none, or one that cannot be read.
    static std::optional<Certificate> of_peer(gnutls_session_t session);
    // Printable on an operator's terminal.
    std::string subject() const;
    // Whether one of the names, of hosts or IP addresses, is its own: as a subject alternative
    // name, or, if it has none, as its common name. Wildcards are no name.
    bool is_one_of(const std::vector<std::string>& names) const;
    gnutls_x509_crt_t get() const { return certificate_.get(); }

  private:
    struct Free {
        void operator()(gnutls_x509_crt_t c) const { gnutls_x509_crt_deinit(c); }
    };
    using Handle = std::unique_ptr<std::remove_pointer_t<gnutls_x509_crt_t>, Free>;
    explicit Certificate(Handle certificate) : certificate_(std::move(certificate)) {}

    Handle certificate_;
};

// What is wrong with the other side of a session whose handshake is under way, if anything is;
// `peers`: the names that it may have, none: any.
std::optional<Refusal> judge_peer(gnutls_session_t session, Role ours,
                                  const std::vector<std::string>& peers);

}  // namespace vmm::tls
