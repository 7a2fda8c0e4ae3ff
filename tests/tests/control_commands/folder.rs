//! Commands on a folder of YAML that nobody else reads.

use std::collections::BTreeSet;

use enforcer::source::manifests;

use super::desk::{Desk, EVERY_KIND, KEY, Said, said, words};

#[test]
fn what_a_dry_run_prints_is_what_is_written_and_what_the_roles_read() {
    let desk = Desk::new();
    let mut names = Vec::new();
    for line in EVERY_KIND {
        let printed = desk.on_folder(&format!("{line} --dry-run -o yaml"));
        assert_eq!((printed.code, printed.err.as_str()), (Some(0), ""), "{line}");
        let before = desk.files().len();

        let created = desk.on_folder(line);
        assert_eq!((created.code, created.err.as_str()), (Some(0), ""), "{line}");
        let name = created.out.trim_end().rsplit('/').next().expect("a name of a file").to_owned();

        let files = desk.files();
        assert_eq!(files.len(), before + 1, "a dry run writes nothing, and nothing is left beside the file");
        assert!(files.contains(&(name.clone(), printed.out)), "{name}: {files:?}");
        names.push(name);
    }
    let read = manifests::load(&desk.objects());
    assert_eq!((read.problems, read.objects.len()), (Vec::new(), EVERY_KIND.len()));
    assert_eq!(
        names,
        [
            "tunnelgateway-eu-1.yaml",
            "keyvaluestore-shop-cache.yaml",
            "mysql-shop-crm.yaml",
            "mysqldatabase-shop-customers.yaml",
            "postgres-shop-orders.yaml",
            "postgresdatabase-shop-carts.yaml",
            "application-shop-web.yaml",
            "kubernetescluster-shop-blue.yaml",
            "serviceconnection-shop-cart-orders.yaml",
        ]
    );
}

#[test]
fn a_connection_is_written_as_the_documents_have_it() {
    let desk = Desk::new();
    let line = EVERY_KIND[8];
    let printed = desk.run(&format!("{line} --dry-run -o yaml"));
    let expected = "apiVersion: enforcer.dev/v1alpha1
kind: ServiceConnection
metadata:
  name: cart-orders
  namespace: shop
spec:
  destination:
    kind: Postgres
    name: orders
  ports:
  - port: 5432
    protocol: TCP
  source:
    kind: KubernetesCluster
    name: my-cluster
    namespaceSelector:
      matchLabels:
        kubernetes.io/metadata.name: production
    podSelector:
      matchExpressions:
      - key: tier
        operator: In
        values:
        - web
        - api
      - key: old
        operator: DoesNotExist
      matchLabels:
        app: cart
  validUntil: 2037-01-01T00:00:00Z
";
    assert_eq!(printed, Said::done(expected), "and no place is needed for it");
}

/// Flags that make an object which is not valid: the words are those that a file gets.
#[test]
fn a_mistake_is_told_in_the_same_words_as_in_a_file_and_nothing_is_written() {
    let desk = Desk::new();
    let connection = "create sc cart -n shop --source=kc/blue --destination=pg/orders";
    let gateway = format!("create gateway eu-1 --public-key {KEY} --endpoint 192.0.2.1:51820");
    let table = [
        (
            "create sc Cart -n shop --source=kc/blue --destination=pg/orders".to_owned(),
            "ServiceConnection shop/Cart: metadata.name: \"Cart\" is no DNS name, expected a-z, 0-9, - and ., \
             beginning and ending with a letter or digit",
        ),
        (
            "create sc cart -n Shop --source=kc/blue --destination=pg/orders".to_owned(),
            "ServiceConnection Shop/cart: metadata.namespace: \"Shop\" is no DNS label, expected at most 63 of \
             a-z, 0-9 and -, beginning and ending with a letter or digit",
        ),
        (
            format!("{connection} --valid-until tomorrow"),
            "ServiceConnection shop/cart: spec.validUntil: \"tomorrow\" is not a time, expected RFC 3339, like \
             2027-01-01T00:00:00Z",
        ),
        (
            format!("{connection} --port 5432,5432"),
            "ServiceConnection shop/cart: spec.ports: TCP/5432 stands twice, expected once",
        ),
        (
            "create sc cart -n shop --source=app/web --destination=pg/orders --source-pod-selector a=b"
                .to_owned(),
            "ServiceConnection shop/cart: spec.source.podSelector: not for an Application, which has its own \
             podSelector and namespace",
        ),
        (
            "create pg orders -n shop --gateway eu-1 --endpoint 127.0.0.1".to_owned(),
            "Postgres shop/orders: spec.endpoints[0].address: 127.0.0.1 is a loopback address, expected the \
             address of a host behind the gateway",
        ),
        (
            "create pg orders -n shop --gateway eu-1,eu-1 --endpoint 192.0.2.7".to_owned(),
            "Postgres shop/orders: spec.gateways: \"eu-1\" stands twice, expected once",
        ),
        (
            "create gateway eu-1 --public-key abc --endpoint 192.0.2.1:51820".to_owned(),
            "TunnelGateway eu-1: spec.publicKey: \"abc\" is not base64, expected 32 bytes in base64 (44 characters)",
        ),
        (
            format!("{gateway} --allowed-backend 10.0.0.1/8:5432"),
            "TunnelGateway eu-1: spec.allowedBackends[0].cidr: \"10.0.0.1/8\" has bits behind its prefix, \
             expected 10.0.0.0/8",
        ),
        (
            format!("{gateway} --allowed-backend 10.0.0.0/8:6000-5000"),
            "TunnelGateway eu-1: spec.allowedBackends[0].ports[0].endPort: 5000, expected at least 6000 (port)",
        ),
        (format!("{gateway} --mtu 100"), "TunnelGateway eu-1: spec.mtu: 100, expected 1280 to 65455"),
    ];
    for (line, message) in table {
        assert_eq!(desk.on_folder(&line), Said::failed(1, &format!("enforcer: {message}\n")), "{line}");
    }
    assert_eq!(desk.files(), [], "nothing was written");
}

#[test]
fn a_wrong_command_line_says_what_was_meant() {
    let desk = Desk::new();
    for (line, code, expected) in [
        (
            "get serviceconection",
            2,
            "enforcer: there is no kind \"serviceconection\": did you mean serviceconnection?",
        ),
        ("create sc x --source=kc/blue --destination=postgers/orders", 2, "did you mean postgres?"),
        (
            "create sc x --source=blue --destination=pg/orders",
            2,
            "expected KIND/NAME, like kubernetescluster/my-cluster",
        ),
        (
            "create sc x --source=kc/b --destination=pg/o --source-pod-selector=''",
            2,
            "empty, expected KEY=VALUE and the like",
        ),
        (
            "create sc x --source=kc/b --destination=pg/o --source-pod-selector='a in b'",
            2,
            "\"a in b\" is no key of a label",
        ),
        ("create servicconnection x", 2, "similar subcommands exist: 'sc', 'serviceconnection'"),
        ("delete pg", 2, "enforcer: which one? Expected KIND NAME… or KIND/NAME…"),
        ("get pg --manifests objects --socket x", 2, "cannot be used with"),
        (
            "get pg --manifests nowhere",
            1,
            "enforcer: cannot read --manifests nowhere: No such file or directory",
        ),
        ("get pg --kubeconfig nowhere", 1, "enforcer: --kubeconfig nowhere: cannot be read"),
        (
            "get pg --run-dir objects",
            1,
            "enforcer: where are the objects? Expected --manifests DIR, --kubeconfig FILE",
        ),
    ] {
        let answer = desk.run(line);
        assert_eq!((answer.code, answer.out.as_str()), (Some(code), ""), "{line}: {answer:?}");
        assert!(answer.err.contains(expected), "{line}: {}", answer.err);
    }
}

#[test]
fn of_many_who_create_the_same_object_at_once_one_does() {
    let desk = Desk::new();
    let start = |_| {
        let line = "create pg orders -n shop --gateway eu-1 --endpoint 203.0.113.10 --manifests objects";
        desk.command()
            .args(words(line))
            .stderr(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .spawn()
    };
    let children: Vec<_> = (0..12).map(start).collect();
    let codes = children.into_iter().map(|child| {
        let said = said(child.expect("it starts").wait_with_output().expect("it ends"));
        if said.code != Some(0) {
            assert!(
                said.err
                    .contains("Postgres shop/orders exists already, in objects/postgres-shop-orders.yaml"),
                "{said:?}"
            );
        }
        said.code
    });
    assert_eq!(codes.filter(|code| *code == Some(0)).count(), 1);
    assert_eq!(desk.files().len(), 1);
}

#[test]
fn two_objects_whose_files_have_one_name_have_two_files() {
    let desk = Desk::new();
    for (project, name) in [("a", "b-c"), ("a-b", "c")] {
        let line = format!("create mydb {name} -n {project} --instance crm");
        assert_eq!(desk.on_folder(&line).code, Some(0));
    }
    let names: Vec<_> = desk.files().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["mysqldatabase-a-b-c-2.yaml", "mysqldatabase-a-b-c.yaml"]);
}

#[test]
fn a_name_that_is_made_is_another_one_each_time() {
    let desk = Desk::new();
    let create = || desk.on_folder("create sc -n shop --source=kc/blue --destination=pg/orders -o name").out;
    let names: BTreeSet<String> = (0..5).map(|_| create()).collect();
    assert_eq!(names.len(), 5, "{names:?}");
    assert!(names.iter().all(|name| name.starts_with("serviceconnection.enforcer.dev/orders-")), "{names:?}");
}

#[test]
fn deleting_takes_the_document_and_leaves_what_others_wrote() {
    let desk = Desk::new();
    let document = |name: &str| {
        format!("# {name} is ours\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}  # short\n")
    };
    desk.write("all.yaml", &[document("a"), document("b"), document("c")].join("---\n"));
    desk.write("b.yml", &document("b"));

    let deleted = desk.on_folder("delete ns a b zebra");
    assert_eq!(
        deleted,
        Said {
            code: Some(3),
            out: "namespace/a deleted from objects/all.yaml\n\
                  namespace/b deleted with its file objects/b.yml, from objects/all.yaml\n"
                .to_owned(),
            err: "enforcer: there is no Namespace zebra\n".to_owned(),
        }
    );
    assert_eq!(desk.files(), [("all.yaml".to_owned(), format!("---\n{}", document("c")))]);
    assert_eq!(desk.on_folder("delete ns b --ignore-not-found"), Said::done(""));
}

#[test]
fn one_name_in_two_projects_is_deleted_in_none_until_somebody_says_which() {
    let desk = Desk::new();
    for project in ["shop", "blog"] {
        desk.on_folder(&format!("create mydb orders -n {project} --instance crm"));
    }
    let both = desk.on_folder("get mydb orders");
    assert_eq!(
        both,
        Said::done(
            "NAMESPACE   NAME     INSTANCE   DATABASE   DNS   READY\n\
             blog        orders   crm        orders           False\n\
             shop        orders   crm        orders           False\n"
        )
    );
    let nothing = Said::failed(3, "enforcer: there is no MySQLDatabase shop/order: did you mean orders?\n");
    assert_eq!(desk.on_folder("get mydb order -n shop -o json"), nothing, "no empty list");
    assert_eq!(
        desk.on_folder("delete mydb orders"),
        Said::failed(
            1,
            "enforcer: MySQLDatabase orders is in projects blog and shop: say which with -n, or -A\n"
        )
    );
    assert_eq!(
        desk.on_folder("delete mydb orders -n blog -o name"),
        Said::done("mysqldatabase.enforcer.dev/orders\n")
    );
    assert_eq!(
        desk.on_folder("delete mydb orders -n blog"),
        Said::failed(3, "enforcer: there is no MySQLDatabase blog/orders: project shop has one (-n)\n")
    );
}

#[test]
fn a_document_that_the_roles_refuse_is_shown_with_the_reason_and_can_be_deleted() {
    let desk = Desk::new();
    desk.write(
        "pg.yaml",
        "apiVersion: enforcer.dev/v1alpha1\nkind: Postgres\nmetadata: {name: pg, namespace: shop}\n\
         spec: {gateway: eu-1}\n",
    );
    let why = "Postgres shop/pg: spec.gateway: unknown field, expected \"gateways\"";
    let listed = desk.on_folder("get pg");
    assert_eq!(
        listed.out,
        "NAME   GATEWAYS   ADDRESSES   DNS   READY\npg                                  False\n"
    );
    assert!(listed.err.starts_with(&format!("note: pg.yaml: {why}")), "{}", listed.err);
    let described = desk.on_folder("describe pg pg").out;
    assert!(described.contains("does not work: objects/pg.yaml: spec.gateway: unknown field"), "{described}");
    assert_eq!(
        desk.on_folder("get sc").err,
        "there is no ServiceConnection\n",
        "other kinds are not concerned"
    );

    let line = EVERY_KIND[4].replace("orders", "pg");
    let taken = "enforcer: Postgres shop/pg exists already, in objects/pg.yaml: delete it first, or change it there\n";
    assert_eq!(desk.on_folder(&line).err, format!("note: there is no TunnelGateway eu-1\n{taken}"));
    assert_eq!(desk.on_folder("delete pg pg").code, Some(0));
    assert_eq!(desk.files(), []);
}
