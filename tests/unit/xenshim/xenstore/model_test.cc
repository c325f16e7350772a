// Random operations by two domains on the store and on a model that is as plain as it can be: a
// map from path to node, copied whole for each transaction.

#include <algorithm>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "xenshim/domain/xenstore/store.h"

namespace xenshim::xenstore {
namespace {

struct ModelNode {
    std::string value;
    Permissions permissions;
    bool operator==(const ModelNode&) const = default;
};
using Tree = std::map<std::string, ModelNode>;

std::string parent_of(const std::string& path) {
    const auto slash = path.rfind('/');
    return slash == 0 ? "/" : path.substr(0, slash);
}

unsigned may(DomainId domid, const Permissions& permissions) {
    if (domid == 0 || permissions[0].domid == domid) return 3;
    for (std::size_t i = 1; i < permissions.size(); ++i) {
        if (permissions[i].domid == domid) return static_cast<unsigned>(permissions[i].access);
    }
    return static_cast<unsigned>(permissions[0].access);
}

class Model {
  public:
    Model() { tree["/"] = ModelNode{"", Permissions{{0, Access::kNone}}}; }

    Tree tree;

    // "" when the caller has the access.
    std::string check(DomainId domid, const std::string& path, unsigned wanted) const {
        std::string at = path;
        while (!tree.contains(at))
            at = parent_of(at);
        if ((may(domid, tree.at(at).permissions) & wanted) == 0) return "EACCES";
        return at == path ? "" : "ENOENT";
    }

    void make(DomainId domid, const std::string& path) {
        if (tree.contains(path)) return;
        make(domid, parent_of(path));
        ModelNode node{"", tree.at(parent_of(path)).permissions};
        if (domid != 0) node.permissions[0].domid = domid;
        tree[path] = node;
    }

    std::string write(DomainId domid, const std::string& path, const std::string& value) {
        const auto error = check(domid, path, 2);
        if (error == "EACCES") return error;
        make(domid, path);
        tree[path].value = value;
        return "";
    }
    std::string mkdir(DomainId domid, const std::string& path) {
        const auto error = check(domid, path, 2);
        if (error == "EACCES") return error;
        make(domid, path);
        return "";
    }
    std::string remove(DomainId domid, const std::string& path) {
        const auto error = check(domid, path, 2);
        if (error == "EACCES") return error;
        if (error == "ENOENT") return tree.contains(parent_of(path)) ? "" : "ENOENT";
        if (path == "/") return "EINVAL";
        std::erase_if(tree, [&](const auto& each) {
            return each.first == path || each.first.starts_with(path + "/");
        });
        return "";
    }
    std::string set_permissions(DomainId domid, const std::string& path, Permissions permissions) {
        const auto error = check(domid, path, 2);
        if (!error.empty()) return error;
        const DomainId owner = tree[path].permissions[0].domid;
        if (domid != 0 && owner != domid) return "EACCES";
        if (domid != 0 && permissions[0].domid != owner) return "EPERM";
        tree[path].permissions = std::move(permissions);
        return "";
    }
};

template <class T>
std::string error_of(const StoreResult<T>& result) {
    return result ? "" : error_name(result.error());
}

// Reads the whole store, as domain 0, into the model's form.
Tree dump(Session& host, TransactionId in) {
    Tree tree;
    std::vector<std::string> left = {"/"};
    while (!left.empty()) {
        const auto path = left.back();
        left.pop_back();
        tree[path] = {*host.read(in, path), *host.permissions(in, path)};
        const auto listing = *host.directory(in, path);
        for (const auto& child : listing.children) {
            left.push_back((path == "/" ? "" : path) + "/" + child);
        }
    }
    return tree;
}

class StoreAgainstModel : public testing::TestWithParam<unsigned> {};

TEST_P(StoreAgainstModel, AgreesOnEverything) {
    std::mt19937 random(GetParam());
    const auto pick = [&](unsigned bound) { return static_cast<unsigned>(random() % bound); };
    const auto some_path = [&] {
        std::string path;
        const unsigned depth = pick(4);
        for (unsigned i = 0; i < depth; ++i)
            path += std::string("/") + "abc"[pick(3)];
        return path.empty() ? std::string("/") : path;
    };

    Store store;
    Session host(store, 0);
    Session guest(store, 5);
    Model model;
    struct Open {
        Session* session;
        TransactionId id;
        Model view;
        Tree at_start;
        int changes;
    };
    int changes = 0;  // operations outside transactions and commits: what can cause a conflict
    std::vector<Open> open;

    for (int step = 0; step < 600; ++step) {
        Session* session = pick(2) == 0 ? &host : &guest;
        Model* view = &model;
        TransactionId in = kNoTransaction;
        if (!open.empty() && pick(3) != 0) {
            auto& chosen = open[pick(static_cast<unsigned>(open.size()))];
            session = chosen.session;
            view = &chosen.view;
            in = chosen.id;
        }
        const DomainId domid = session->domid();
        const auto path = some_path();
        const unsigned operation = pick(10);
        if (in == kNoTransaction && operation < 6) ++changes;
        switch (operation) {
            case 0:
            case 1:
            case 2: {
                const auto value = std::to_string(step);
                ASSERT_EQ(error_of(session->write(in, path, value)),
                          view->write(domid, path, value));
                break;
            }
            case 3: ASSERT_EQ(error_of(session->mkdir(in, path)), view->mkdir(domid, path)); break;
            case 4:
                ASSERT_EQ(error_of(session->remove(in, path)), view->remove(domid, path));
                break;
            case 5: {
                Permissions permissions = {
                    {static_cast<DomainId>(pick(2) * 5), static_cast<Access>(pick(4))}};
                if (pick(2) == 0) permissions.push_back({5, static_cast<Access>(pick(4))});
                ASSERT_EQ(error_of(session->set_permissions(in, path, permissions)),
                          view->set_permissions(domid, path, permissions));
                break;
            }
            case 6:
            case 7: {
                const auto value = session->read(in, path);
                ASSERT_EQ(error_of(value), view->check(domid, path, 1));
                if (value) {
                    ASSERT_EQ(*value, view->tree[path].value);
                }
                break;
            }
            case 8:
                if (open.size() < 4) {
                    open.push_back(
                        {session, *session->start_transaction(), model, model.tree, changes});
                }
                break;
            default:
                if (in != kNoTransaction) {
                    const auto chosen = std::find_if(open.begin(), open.end(), [&](const Open& o) {
                        return o.id == in && o.session == session;
                    });
                    const bool commit = pick(4) != 0;
                    const auto end = error_of(session->end_transaction(in, commit));
                    if (commit && end.empty()) {
                        // Without a conflict, the result is as if it had run alone, now: what it
                        // changed is changed, and all else is as the others left it.
                        Tree expected = model.tree;
                        for (const auto& [at, node] : chosen->view.tree) {
                            const auto before = chosen->at_start.find(at);
                            if (before == chosen->at_start.end() || before->second != node) {
                                expected[at] = node;
                            }
                        }
                        for (const auto& [at, node] : chosen->at_start) {
                            if (!chosen->view.tree.contains(at)) expected.erase(at);
                        }
                        model.tree = expected;
                        ++changes;
                    } else if (commit) {
                        ASSERT_EQ(end, "EAGAIN");
                        ASSERT_NE(changes, chosen->changes);
                    }
                    open.erase(chosen);
                }
        }
        ASSERT_TRUE(store.accounting_holds()) << step;
        if (step % 16 == 0) {
            ASSERT_EQ(dump(host, kNoTransaction), model.tree) << step;
        }
    }
    ASSERT_EQ(dump(host, kNoTransaction), model.tree);
    for (const auto& each : open) {
        if (each.session == &host) {
            ASSERT_EQ(dump(host, each.id), each.view.tree);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Seeds, StoreAgainstModel, testing::Range(1u, 9u));

}  // namespace
}  // namespace xenshim::xenstore
