#include "vmm/tls/credentials.h"

#include <string>

#include <sys/stat.h>

#include <gtest/gtest.h>

#include "tests/unit/vmm/tls/certificates.h"

namespace vmm::tls {
namespace {

using test::Authority;
using test::Host;
using test::Key;
using test::Wanted;

// Why the files of a folder are refused; the file must be named.
std::string refused(const test::Folder& folder, const std::string& file) {
    const auto loaded = Credentials::load(folder.path());
    if (loaded) {
        ADD_FAILURE() << file << " was taken";
        return {};
    }
    EXPECT_EQ(loaded.error().fault, Fault::kUser);
    const std::string& what = loaded.error().what;
    EXPECT_TRUE(what.starts_with(folder.path() + "/" + file + ": ")) << what;
    EXPECT_EQ(what.find('\n'), std::string::npos) << what;
    return what;
}
testing::AssertionResult says(const std::string& what, const std::string& text) {
    if (what.find(text) != std::string::npos) return testing::AssertionSuccess();
    return testing::AssertionFailure() << what << " lacks " << text;
}

class CredentialsTest : public testing::Test {
  protected:
    Authority authority_;
    Host host_{authority_, {}};
    const test::Folder& folder_ = host_.folder;
};

TEST_F(CredentialsTest, GoodFilesAreTaken) {
    const auto loaded = Credentials::load(folder_.path());
    EXPECT_TRUE(loaded) << loaded.error().what;
}

TEST_F(CredentialsTest, EachFileMustBeThere) {
    for (const char* const name : {"ca.pem", "cert.pem", "key.pem"}) {
        const Host host(authority_, {});
        ::unlink((host.folder.path() + "/" + name).c_str());
        EXPECT_TRUE(says(refused(host.folder, name), "No such file"));
    }
}

TEST_F(CredentialsTest, AndHoldWhatItsNameSays) {
    for (const char* const name : {"ca.pem", "cert.pem", "key.pem"}) {
        for (const std::string& text : {std::string(), std::string("just some text\n"),
                                        host_.certificate.pem().substr(0, 200)}) {
            const Host host(authority_, {});
            host.folder.write(name, text);
            refused(host.folder, name);
        }
    }
    folder_.write("cert.pem", host_.key.pem());
    refused(folder_, "cert.pem");
}

TEST_F(CredentialsTest, AFolderIsNoFile) {
    const std::string key = folder_.path() + "/key.pem";
    ::unlink(key.c_str());
    ASSERT_EQ(::mkdir(key.c_str(), 0700), 0);
    EXPECT_TRUE(says(refused(folder_, "key.pem"), "no file"));
}

TEST_F(CredentialsTest, AKeyThatOthersMayUseIsRefused) {
    for (const mode_t mode : {0640, 0604, 0620, 0602, 0610, 0644, 0666}) {
        folder_.write("key.pem", host_.key.pem(), mode);
        EXPECT_TRUE(says(refused(folder_, "key.pem"), "others than its owner (mode 0"));
    }
    for (const mode_t mode : {0600, 0400, 0700}) {
        folder_.write("key.pem", host_.key.pem(), mode);
        EXPECT_TRUE(Credentials::load(folder_.path())) << mode;
        ::unlink((folder_.path() + "/key.pem").c_str());
    }
}

TEST_F(CredentialsTest, AKeyOfAnotherCertificateIsRefused) {
    folder_.write("key.pem", Key().pem());
    EXPECT_TRUE(says(refused(folder_, "key.pem"), "not the key of"));
}

TEST_F(CredentialsTest, ACertificateThatNobodyWouldTakeIsRefused) {
    const Host old(authority_, {.from = -7200, .to = -3600});
    EXPECT_TRUE(says(refused(old.folder, "cert.pem"), "it expired on 2"));
    const Host young(authority_, {.from = 3600, .to = 7200});
    EXPECT_TRUE(says(refused(young.folder, "cert.pem"), "not valid before 2"));
    const Authority other;
    const Host stranger(other, {});
    stranger.folder.write("ca.pem", authority_.certificate.pem());
    EXPECT_TRUE(says(refused(stranger.folder, "cert.pem"), "ca.pem has signed it"));
}

TEST_F(CredentialsTest, AWeakKeyIsRefused) {
    const Key key(GNUTLS_PK_RSA, 1024);
    const test::Cert weak({}, key, &authority_.certificate, authority_.key);
    const test::Folder folder(authority_, weak, key);
    EXPECT_TRUE(says(refused(folder, "cert.pem"), "112 bits"));
}

TEST_F(CredentialsTest, ARevokedCertificateIsRefused) {
    folder_.write("crl.pem", authority_.revoke(host_.certificate));
    EXPECT_TRUE(says(refused(folder_, "cert.pem"), "revoked"));
    const Host other(authority_, {});
    folder_.write("crl.pem", authority_.revoke(other.certificate));
    const auto loaded = Credentials::load(folder_.path());
    EXPECT_TRUE(loaded) << loaded.error().what;
}

TEST_F(CredentialsTest, AListThatRevokesNothingIsRefused) {
    const Authority other;
    folder_.write("crl.pem", other.revoke(host_.certificate));
    refused(folder_, "crl.pem");
    folder_.write("crl.pem", "");
    refused(folder_, "crl.pem");
}

}  // namespace
}  // namespace vmm::tls
