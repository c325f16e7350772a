#include "vmm/tls/credentials.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <ctime>
#include <fcntl.h>
#include <string_view>
#include <type_traits>

#include <sys/stat.h>

#include "vmm/base/fd.h"

namespace vmm::tls {
namespace {

// Strength of keys and signatures: 112 bits, which is RSA of 2048 (NIST SP 800-57).
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wold-style-cast"  // GnuTLS's own
constexpr unsigned kVerifyFlags = GNUTLS_PROFILE_TO_VFLAGS(GNUTLS_PROFILE_MEDIUM);
#pragma GCC diagnostic pop

enum class Secret { kNo, kYes };

Result<std::string> read_file(const std::string& path, Secret secret) {
    const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (!file) return errno_error(path, Fault::kUser);
    struct stat about {};
    if (::fstat(file.get(), &about) != 0) return errno_error(path, Fault::kUser);
    if (!S_ISREG(about.st_mode)) return user_error(path + ": it is no file");
    constexpr mode_t kOthers = S_IRWXG | S_IRWXO;
    if (secret == Secret::kYes && (about.st_mode & kOthers) != 0) {
        std::array<char, 8> mode{};
        std::snprintf(mode.data(), mode.size(), "%04o", about.st_mode & 07777U);
        return user_error(path + ": the private key is open to others than its owner (mode " +
                          mode.data() + "); make it 0600");
    }
    constexpr off_t kMost = off_t{1} << 20;
    if (about.st_size > kMost) return user_error(path + ": it is longer than 1 MiB");
    std::string text(static_cast<std::size_t>(about.st_size), '\0');
    for (std::size_t at = 0; at < text.size();) {
        const ssize_t n = ::read(file.get(), text.data() + at, text.size() - at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno_error(path, Fault::kUser);
        if (n == 0) text.resize(at);
        at += static_cast<std::size_t>(n);
    }
    return text;
}

gnutls_datum_t datum(const std::string& text) {
    // GnuTLS reads it only.
    auto* const bytes = reinterpret_cast<unsigned char*>(const_cast<char*>(text.data()));  // NOLINT
    return {.data = bytes, .size = static_cast<unsigned>(text.size())};
}

Failure<Error> gnutls_error(const std::string& path, int code) {
    return user_error(path + ": " + gnutls_strerror(code));
}

std::string day(std::time_t time) {
    std::tm parts{};
    ::gmtime_r(&time, &parts);
    std::array<char, 40> text{};
    std::strftime(text.data(), text.size(), "%Y-%m-%d %H:%M:%S UTC", &parts);
    return text.data();
}

// `status`: gnutls_certificate_status_t, of which several bits may be set; `leaf`: the first
// certificate of the chain that it is about.
std::optional<Refusal> refusal(unsigned status, gnutls_x509_crt_t leaf, const std::string& ca) {
    if (status == 0) return std::nullopt;
    const auto has = [status](unsigned bit) { return (status & bit) != 0; };
    // A CA that was made anew has the name of the old one, and another key.
    if (has(GNUTLS_CERT_SIGNER_NOT_FOUND) || has(GNUTLS_CERT_SIGNATURE_FAILURE)) {
        return Refusal{"no CA of " + ca + " has signed it", GNUTLS_A_UNKNOWN_CA};
    }
    if (has(GNUTLS_CERT_REVOKED)) return Refusal{"it was revoked", GNUTLS_A_CERTIFICATE_REVOKED};
    const std::time_t now = std::time(nullptr);
    if (has(GNUTLS_CERT_EXPIRED)) {
        const std::time_t end = gnutls_x509_crt_get_expiration_time(leaf);
        return Refusal{end < now ? "it expired on " + day(end) : "its CA's has expired",
                       GNUTLS_A_CERTIFICATE_EXPIRED};
    }
    if (has(GNUTLS_CERT_NOT_ACTIVATED)) {
        const std::time_t begin = gnutls_x509_crt_get_activation_time(leaf);
        return Refusal{
            begin > now ? "it is not valid before " + day(begin) : "its CA's is not valid yet",
            GNUTLS_A_CERTIFICATE_EXPIRED};
    }
    if (has(GNUTLS_CERT_PURPOSE_MISMATCH)) {
        return Refusal{"it was not made for this purpose (extended key usage)",
                       GNUTLS_A_UNSUPPORTED_CERTIFICATE};
    }
    if (has(GNUTLS_CERT_INSECURE_ALGORITHM)) {
        return Refusal{"its key or a signature has less than 112 bits of strength"};
    }
    gnutls_datum_t text{};
    if (gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0) < 0) {
        return Refusal{"it is not valid"};
    }
    std::string why(reinterpret_cast<const char*>(text.data), text.size);  // NOLINT
    gnutls_free(text.data);
    while (!why.empty() && why.back() == ' ')
        why.pop_back();
    return Refusal{why};
}

struct CertificateList {
    gnutls_x509_crt_t* list = nullptr;
    unsigned count = 0;
    CertificateList() = default;
    CertificateList(const CertificateList&) = delete;
    CertificateList& operator=(const CertificateList&) = delete;
    ~CertificateList() {
        for (unsigned i = 0; i < count; ++i)
            gnutls_x509_crt_deinit(list[i]);
        gnutls_free(list);
    }
};

struct PrivateKey {
    gnutls_x509_privkey_t key = nullptr;
    PrivateKey() { gnutls_x509_privkey_init(&key); }
    PrivateKey(const PrivateKey&) = delete;
    PrivateKey& operator=(const PrivateKey&) = delete;
    ~PrivateKey() { gnutls_x509_privkey_deinit(key); }
};

struct TrustList {
    gnutls_x509_trust_list_t list = nullptr;
    TrustList() { gnutls_x509_trust_list_init(&list, 0); }
    TrustList(const TrustList&) = delete;
    TrustList& operator=(const TrustList&) = delete;
    ~TrustList() {
        if (list != nullptr) gnutls_x509_trust_list_deinit(list, 1);
    }
};

std::string without_control_bytes(std::string text) {
    std::ranges::replace_if(
        text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; }, '?');
    return text;
}

}  // namespace

Result<Credentials> Credentials::load(const std::string& folder) {
    const std::string ca_path = folder + "/ca.pem", certificate_path = folder + "/cert.pem",
                      key_path = folder + "/key.pem", crl_path = folder + "/crl.pem";
    const std::string ca_text = TRY(read_file(ca_path, Secret::kNo));
    const std::string certificate_text = TRY(read_file(certificate_path, Secret::kNo));
    std::string key_text = TRY(read_file(key_path, Secret::kYes));
    const gnutls_datum_t ca = datum(ca_text), certificate = datum(certificate_text),
                         secret = datum(key_text);

    TrustList trusted;
    const int trusts =
        gnutls_x509_trust_list_add_trust_mem(trusted.list, &ca, nullptr, GNUTLS_X509_FMT_PEM, 0, 0);
    if (trusts < 0) return gnutls_error(ca_path, trusts);
    if (trusts == 0) return user_error(ca_path + ": there is no certificate in it");
    if (::access(crl_path.c_str(), F_OK) == 0) {
        const std::string crl_text = TRY(read_file(crl_path, Secret::kNo));
        const gnutls_datum_t crl = datum(crl_text);
        // A list that none of the CAs has signed would revoke nothing, and nobody would know.
        const int lists = gnutls_x509_trust_list_add_trust_mem(
            trusted.list, nullptr, &crl, GNUTLS_X509_FMT_PEM, GNUTLS_TL_VERIFY_CRL, kVerifyFlags);
        if (lists < 0) return gnutls_error(crl_path, lists);
        if (lists == 0) {
            return user_error(crl_path + ": there is no list in it that a CA of " + ca_path +
                              " has signed");
        }
    } else if (errno != ENOENT) {
        return errno_error(crl_path, Fault::kUser);
    }

    CertificateList chain;
    if (const int n = gnutls_x509_crt_list_import2(&chain.list, &chain.count, &certificate,
                                                   GNUTLS_X509_FMT_PEM,
                                                   GNUTLS_X509_CRT_LIST_FAIL_IF_UNSORTED);
        n < 0 || chain.count == 0) {
        return gnutls_error(certificate_path, n);
    }
    PrivateKey key;
    const int read = gnutls_x509_privkey_import2(key.key, &secret, GNUTLS_X509_FMT_PEM, nullptr, 0);
    gnutls_memset(key_text.data(), 0, key_text.size());
    if (read == GNUTLS_E_DECRYPTION_FAILED) {
        return user_error(key_path +
                          ": the private key is encrypted; it has to be without a "
                          "password");
    }
    if (read < 0) return gnutls_error(key_path, read);

    // What the other side would find out, and could only say in a word.
    unsigned status = 0;
    if (const int n = gnutls_x509_trust_list_verify_crt2(
            trusted.list, chain.list, chain.count, nullptr, 0, kVerifyFlags, &status, nullptr);
        n < 0) {
        return gnutls_error(certificate_path, n);
    }
    if (const auto wrong = refusal(status, chain.list[0], ca_path)) {
        return user_error(certificate_path + ": " + wrong->why);
    }

    gnutls_certificate_credentials_t made = nullptr;
    if (const int n = gnutls_certificate_allocate_credentials(&made); n < 0) {
        return internal_error(gnutls_strerror(n));
    }
    Credentials credentials(Handle(made), folder);
    const int fits =
        gnutls_certificate_set_x509_key(made, chain.list, static_cast<int>(chain.count), key.key);
    if (fits == GNUTLS_E_CERTIFICATE_KEY_MISMATCH) {
        return user_error(key_path + ": it is not the key of " + certificate_path);
    }
    if (fits < 0) return gnutls_error(key_path, fits);
    gnutls_certificate_set_trust_list(made, std::exchange(trusted.list, nullptr), 0);
    return credentials;
}

std::optional<Certificate> Certificate::of_peer(gnutls_session_t session) {
    unsigned count = 0;
    const gnutls_datum_t* const list = gnutls_certificate_get_peers(session, &count);
    gnutls_x509_crt_t made = nullptr;
    if (list == nullptr || count == 0 || gnutls_x509_crt_init(&made) < 0) return std::nullopt;
    Certificate certificate{Handle(made)};
    if (gnutls_x509_crt_import(made, list, GNUTLS_X509_FMT_DER) < 0) return std::nullopt;
    return certificate;
}

std::string Certificate::subject() const {
    gnutls_datum_t text{};
    if (gnutls_x509_crt_get_dn3(get(), &text, 0) < 0) return "(no name)";
    std::string name(reinterpret_cast<const char*>(text.data), text.size);  // NOLINT
    gnutls_free(text.data);
    return name.empty() ? "(no name)" : without_control_bytes(name);
}

bool Certificate::is_one_of(const std::vector<std::string>& names) const {
    // GnuTLS looks at the common name only if the certificate may be a server's.
    std::string common;
    std::array<char, 1> probe{};
    std::size_t size = 0;
    if (gnutls_x509_crt_get_subject_alt_name(get(), 0, probe.data(), &size, nullptr) ==
        GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE) {
        std::array<char, 256> text{};
        size = text.size();
        if (gnutls_x509_crt_get_dn_by_oid(get(), GNUTLS_OID_X520_COMMON_NAME, 0, 0, text.data(),
                                          &size) >= 0) {
            common.assign(text.data(), size);
        }
    }
    return std::ranges::any_of(names, [&](const std::string& name) {
        return gnutls_x509_crt_check_hostname2(get(), name.c_str(),
                                               GNUTLS_VERIFY_DO_NOT_ALLOW_WILDCARDS) != 0 ||
               (!common.empty() && name == common);
    });
}

std::optional<Refusal> judge_peer(gnutls_session_t session, Role ours,
                                  const std::vector<std::string>& peers) {
    const auto certificate = Certificate::of_peer(session);
    if (!certificate) return Refusal{"it shows no certificate", GNUTLS_A_CERTIFICATE_REQUIRED};
    std::string purpose =
        ours == Role::kClient ? GNUTLS_KP_TLS_WWW_SERVER : GNUTLS_KP_TLS_WWW_CLIENT;
    gnutls_typed_vdata_st wanted{
        .type = GNUTLS_DT_KEY_PURPOSE_OID,
        .data = reinterpret_cast<unsigned char*>(purpose.data()),  // NOLINT
        .size = 0};
    const std::string about = "its certificate ('" + certificate->subject() + "') is refused: ";
    unsigned status = 0;
    if (const int n = gnutls_certificate_verify_peers(session, &wanted, 1, &status); n < 0) {
        return Refusal{about + gnutls_strerror(n)};
    }
    if (auto wrong = refusal(status, certificate->get(), "ca.pem")) {
        wrong->why.insert(0, about);
        return wrong;
    }
    if (peers.empty() || certificate->is_one_of(peers)) return std::nullopt;
    std::string names;
    for (const std::string& name : peers)
        names += (names.empty() ? "'" : " or '") + name + "'";
    return Refusal{about + "it is not that of " + without_control_bytes(names),
                   GNUTLS_A_ACCESS_DENIED};
}

}  // namespace vmm::tls
